"""What draws the training pictures: captions and seeds in, one drawing each.

To add a teacher: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from PIL import Image

from pipeline.config import DiffusersTeacher, ShapesTeacher, TeacherConfig


@dataclass(frozen=True)
class Drawing:
    """`image` is None exactly when `reason` says why nothing was drawn."""

    image: Image.Image | None
    reason: str = ""


@dataclass(frozen=True)
class TeacherFacts:
    """What each row of the images table says about its maker."""

    name: str
    revision: str
    licence: str
    num_steps: int
    guidance: float


class Teacher(Protocol):
    @property
    def facts(self) -> TeacherFacts: ...

    def draw(
        self, captions: Sequence[str], seeds: Sequence[int], image_size: int
    ) -> list[Drawing]: ...


def build(config: TeacherConfig) -> Teacher:
    match config:
        case ShapesTeacher():
            from pipeline.teachers.shapes import ShapesDrawer

            return ShapesDrawer(config)
        case DiffusersTeacher():
            from pipeline.teachers.diffusers import DiffusersDrawer

            return DiffusersDrawer(config)
        case _:
            assert_never(config)


def missing(config: TeacherConfig, accept_licence: str | None = None) -> list[str]:
    """What this machine or this run lacks for the teacher, one sentence each."""
    if not isinstance(config, DiffusersTeacher):
        return []
    from pipeline.teachers.requirements import missing_for

    return missing_for(config, accept_licence)
