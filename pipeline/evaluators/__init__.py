"""What measures a student: fixed prompts out, pictures in, right or wrong back.

To add an evaluator: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from PIL import Image

from pipeline.config import EvaluatorConfig, GenEvalEvaluator, ShapesEvaluator


@dataclass(frozen=True)
class Prompt:
    index: int
    task: str
    text: str


@dataclass(frozen=True)
class Score:
    correct: bool
    reason: str  # a category that is counted; "" when correct
    extra_objects: int  # of what it looks for, beyond what is asked; most rules forgive them
    words: str = ""  # the reason as a person reads it
    details: str = ""  # JSON of what was seen, where a picture can be judged again by it


class Evaluator(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def judge(self) -> str:
        """What decides, with its version or weights: a stamp of every row."""
        ...

    @property
    def images_per_prompt(self) -> int: ...

    def prompts(self) -> list[Prompt]: ...

    def score(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[Score]: ...


def build(config: EvaluatorConfig) -> Evaluator:
    match config:
        case ShapesEvaluator():
            from pipeline.evaluators.shapes import ShapesScorer

            return ShapesScorer(config)
        case GenEvalEvaluator():
            from pipeline.evaluators.geneval import GenEvalScorer

            return GenEvalScorer(config)
        case _:
            assert_never(config)


def identity(config: EvaluatorConfig) -> dict[str, object]:
    """What shapes its prompts and scores: another value here is another shard."""
    if isinstance(config, GenEvalEvaluator):
        from pipeline.evaluators.geneval import identity_of

        return identity_of(config)
    return config.model_dump(mode="json")


def missing(config: EvaluatorConfig) -> list[str]:
    """What this machine lacks for the evaluator, one sentence each."""
    if isinstance(config, GenEvalEvaluator):
        from pipeline.evaluators.geneval import missing_of

        return missing_of(config)
    return []
