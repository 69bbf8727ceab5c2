"""What draws the training pictures: captions and seeds in, one drawing each.

To add a teacher: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from PIL import Image

from pipeline import plugins
from pipeline.config import (
    DiffusersTeacher,
    PicturesTeacher,
    PluginTeacher,
    ShapesTeacher,
    TeacherConfig,
)


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
    pipeline: str = ""  # the class that drew, where one did
    precision: str = ""  # of its weights


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
        case PicturesTeacher():
            from pipeline.teachers.pictures import PictureFinder

            return PictureFinder(config)
        case PluginTeacher():
            teacher: Teacher = plugins.load(config.path, config.values)
            return teacher
        case _:
            assert_never(config)


def identity(config: TeacherConfig) -> dict[str, object]:
    """What shapes its pictures: another value here is another table."""
    match config:
        case DiffusersTeacher():
            from pipeline.encoders import weights_identity

            how = {"batch_size", "text_batch_size", "offload", "compile", "attention_backend"}
            weights = weights_identity(config.repository, config.revision)
            return {**config.model_dump(mode="json", exclude=how), "repository": weights}
        case PicturesTeacher():
            from pipeline.decoding import FITTING
            from pipeline.teachers.pictures import files_of

            values = config.model_dump(mode="json", exclude={"paths"}) | {"fitting": FITTING}
            if config.revision != "local":  # a set that is pinned stays itself when it moves
                return values
            files = [[path.name, path.stat().st_size] for path in files_of(config)]
            return {**values, "files": files}
        case _:
            return config.model_dump(mode="json")


def side_by_side(config: TeacherConfig) -> bool:
    """May it draw in several threads? A pipeline of diffusers counts its steps in itself."""
    match config:
        case ShapesTeacher():
            return True
        case PluginTeacher():
            return bool(getattr(build(config), "side_by_side", False))
        case _:
            return False


def missing(config: TeacherConfig, accept_licence: str | None = None) -> list[str]:
    """What this machine or this run lacks for the teacher, one sentence each."""
    if isinstance(config, ShapesTeacher):
        return []
    from pipeline.teachers.requirements import missing_for

    return missing_for(config, accept_licence)
