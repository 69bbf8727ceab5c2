"""What judges a picture against its caption: how well it fits, how good it is, and why.

To add a judge: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, assert_never

from PIL import Image

from pipeline import plugins
from pipeline.config import (
    ClipJudgeConfig,
    JudgeConfig,
    PluginJudge,
    QwenJudge,
    ShapesJudge,
)

# Reasons of pictures that a judge did not judge: never accepted, whatever the thresholds.
UNPARSABLE, NO_ANSWER, REFUSED = "unparsable answer", "no answer", "refused by the server"


@dataclass(frozen=True)
class Verdict:
    """Scores from 0 to 1; `words` is for a person, `reason` a category that is counted."""

    alignment: float
    quality: float
    words: str
    reason: str  # "" when nothing is wrong
    answer: str = ""  # what the judge's model said, as it said it


class Judge(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def in_flight(self) -> int:
        """Pictures that it judges at once; 1 for a judge that gains nothing from more."""
        ...

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]: ...


def build(config: JudgeConfig, memo: Path | None = None) -> Judge:
    """`memo`: the file where a judge that is slow to ask keeps what it was told."""
    match config:
        case ShapesJudge():
            from pipeline.judges.shapes import DetectorJudge

            return DetectorJudge()
        case QwenJudge():
            from pipeline.judges.qwen_vl import QwenVlJudge

            return QwenVlJudge(config, memo)
        case ClipJudgeConfig():
            from pipeline.judges.clip import ClipJudge

            return ClipJudge(config)
        case PluginJudge():
            judge: Judge = plugins.load(config.path, config.values)
            return judge
        case _:
            assert_never(config)


def identity(config: JudgeConfig) -> dict[str, object]:
    """What shapes its verdicts: another value here is another table.

    Where a judge is served, and how many questions it is asked at once, changes no verdict.
    """
    if isinstance(config, ClipJudgeConfig):
        return config.model_dump(mode="json", exclude={"batch_size"})
    if isinstance(config, ShapesJudge | PluginJudge):
        return config.model_dump(mode="json")
    from pipeline.judges.questions import digest

    served = {"endpoints", "api_key_variable", "requests_in_flight", "workers"}
    patience = {"timeout_seconds", "patience_seconds", "max_error_rate"}
    values = config.model_dump(mode="json", exclude={*served, *patience})
    return {**values, "questions": digest(config.mode, config.question_version)}


def side_by_side(config: JudgeConfig) -> bool:
    """May it judge in several threads? One that is asked over HTTP keeps its servers busy alone."""
    match config:
        case ShapesJudge():
            return True
        case PluginJudge():
            return bool(getattr(build(config), "side_by_side", False))
        case _:
            return False


def missing(config: JudgeConfig, place: str = "verdicts.judge") -> list[str]:
    """What this machine lacks for the judge at this place of the run, one sentence each."""
    match config:
        case QwenJudge():
            from pipeline.judges.servers import missing_endpoints

            return missing_endpoints(config, config.model)
        case ClipJudgeConfig():
            return _missing_clip(config, place)
        case PluginJudge():
            lacking = plugins.missing(config.path, place)
            return [lacking] if lacking else []
        case _:
            return []


def _missing_clip(config: ClipJudgeConfig, judge: str) -> list[str]:
    lacking = []
    if find_spec("open_clip") is None:
        lacking.append(f"{judge}: kind clip needs open_clip; pip install -e '.[clip]'")
    for place, file in (("weights", config.weights), ("aesthetic", config.aesthetic)):
        if file and not (file.endswith(".safetensors") and Path(file).is_file()):
            lacking.append(f"{judge}.{place}: {file} is not there as a .safetensors file")
    return lacking
