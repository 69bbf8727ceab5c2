"""What judges a picture against its caption: how well it fits, how good it is, and why.

To add a judge: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from PIL import Image

from pipeline.config import JudgeConfig, QwenJudge, ShapesJudge


@dataclass(frozen=True)
class Verdict:
    """Scores from 0 to 1; `words` is for a person, `reason` a category that is counted."""

    alignment: float
    quality: float
    words: str
    reason: str  # "" when nothing is wrong


class Judge(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]: ...


def build(config: JudgeConfig) -> Judge:
    match config:
        case ShapesJudge():
            from pipeline.judges.shapes import DetectorJudge

            return DetectorJudge()
        case QwenJudge():
            from pipeline.judges.qwen_vl import QwenVlJudge

            return QwenVlJudge(config)
        case _:
            assert_never(config)


def missing(config: JudgeConfig) -> list[str]:
    """What this machine lacks for the judge, one sentence each."""
    if not isinstance(config, QwenJudge):
        return []
    from pipeline.judges.qwen_vl import missing_endpoints

    return missing_endpoints(config)
