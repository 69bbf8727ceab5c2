"""What measures a student: fixed prompts out, pictures in, right or wrong back.

To add an evaluator: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from PIL import Image

from pipeline.config import EvaluatorConfig, GenEvalEvaluator, ShapesEvaluator

GENEVAL_IS_MISSING = (
    "the GenEval detector is not built yet; the shapes evaluator asks GenEval's six tasks with "
    "an exact detector: evaluation.evaluators: [{kind: shapes}]"
)


@dataclass(frozen=True)
class Prompt:
    index: int
    task: str
    text: str


@dataclass(frozen=True)
class Score:
    correct: bool
    reason: str  # "" when correct


class Evaluator(Protocol):
    @property
    def name(self) -> str: ...

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
            raise ValueError(GENEVAL_IS_MISSING)
        case _:
            assert_never(config)


def missing(config: EvaluatorConfig) -> list[str]:
    """What this machine lacks for the evaluator, one sentence each."""
    return [GENEVAL_IS_MISSING] if isinstance(config, GenEvalEvaluator) else []
