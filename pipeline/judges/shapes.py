"""The embedded world's judge: the exact detector and GenEval's rules.

In:    pictures and their captions.
Out:   verdicts. Alignment is 1 for a right picture, and half of its partial credit (below 0.5)
       for a wrong one, so that a threshold of a half keeps the right ones. Quality is how clean
       the shapes are, less a quarter for each object that nobody asked for.
"""

from collections.abc import Sequence

from PIL import Image

from pipeline.judges import Verdict
from pipeline.shapes.detector import DETECTOR_VERSION, detect
from pipeline.shapes.grammar import parse
from pipeline.shapes.rules import alignment, check, num_extra

EXTRA_OBJECT_COST = 0.25


class DetectorJudge:
    name = "shapes"
    revision = str(DETECTOR_VERSION)
    in_flight = 1

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        return [_verdict(image, caption) for image, caption in zip(images, captions, strict=True)]


def _verdict(image: Image.Image, caption: str) -> Verdict:
    spec = parse(caption)
    if spec is None:
        return Verdict(0.0, 0.0, "the caption is outside the grammar", "not in the grammar")
    found = detect(image)
    outcome = check(spec, found)
    credit = alignment(spec, found)
    extra = num_extra(spec, found)
    clean = sum(one.score for one in found) / len(found) if found else 0.0
    quality = max(0.0, clean - EXTRA_OBJECT_COST * extra)
    words = outcome.words
    if outcome.correct and extra:
        words = f"{words}, and {extra} more"
    return Verdict(1.0 if outcome.correct else credit / 2, quality, words, outcome.reason)
