"""A teacher for `test_stages.py`: it fails at a caption for as long as a file names it."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import ShapesTeacher
from pipeline.teachers import Drawing
from pipeline.teachers.shapes import ShapesDrawer


class ShakyTeacher(ShapesDrawer):
    def __init__(self, file: str) -> None:
        super().__init__(ShapesTeacher(kind="shapes"))
        self.file = Path(file)

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        if self.file.exists() and self.file.read_text("utf-8") in captions:
            raise RuntimeError("the device fell off the bus")
        return super().draw(captions, seeds, image_size)
