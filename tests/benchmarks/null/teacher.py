"""A teacher whose every picture is the same; a PNG of 16 px takes about 80 bytes."""

from collections.abc import Sequence

from PIL import Image

from pipeline.teachers import Drawing, TeacherFacts


class NullTeacher:
    side_by_side = True
    facts = TeacherFacts("null", "1", "MIT", 0, 0.0)

    def __init__(self) -> None:
        self.pictures: dict[int, Image.Image] = {}

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        one = self.pictures.setdefault(
            image_size, Image.new("RGB", (image_size, image_size), (40, 120, 200))
        )
        return [Drawing(one)] * len(captions)
