"""A judge that likes every picture."""

from collections.abc import Sequence

from PIL import Image

from pipeline.judges import Verdict


class NullJudge:
    side_by_side = True
    name, revision, in_flight = "null", "1", 1

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        return [Verdict(1.0, 1.0, "fine", "")] * len(images)
