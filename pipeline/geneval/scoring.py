"""Pictures to readings: the detector, then the colours of the objects that the prompts ask about.

In:    pictures and their requests; a detector and a CLIP, by folder or hub repository.
Out:   a `Reading` a picture, of which the decision follows without a model.
Rerun: the same pictures give the same readings, to the last bits of another batch.
"""

from collections.abc import Sequence

from PIL import Image

from pipeline.clip_models import Clip
from pipeline.geneval.colours import ColourReader, Object
from pipeline.geneval.detector import Detected, Detector
from pipeline.geneval.prompts import Request
from pipeline.geneval.readings import Colour, Reading
from pipeline.geneval.rules import PUBLISHED


class Scorer:
    def __init__(self, detector: Detector, clip: Clip) -> None:
        self.detector, self.clip = detector, clip
        self.colours = ColourReader(clip)
        self.name = f"{detector.name} {clip.name}"

    def read(self, images: Sequence[Image.Image], requests: Sequence[Request]) -> list[Reading]:
        """One reading a picture; masks are held for one of the detector's batches at a time."""
        if len(images) != len(requests):
            raise ValueError(f"{len(images)} pictures with {len(requests)} prompts")
        readings: list[Reading] = []
        for first in range(0, len(images), self.detector.batch_size):
            part = slice(first, first + self.detector.batch_size)
            readings += self._batch(images[part], requests[part])
        return readings

    def _batch(self, images: Sequence[Image.Image], requests: Sequence[Request]) -> list[Reading]:
        seen = self.detector.detect(images)
        asked = [
            (picture, name, number)
            for picture, request in enumerate(requests)
            for name, number in _asked(request, seen[picture])
        ]
        objects = [
            Object(images[p], name, seen[p].boxes[name][n], seen[p].masks[name][n])
            for p, name, n in asked
        ]
        colours: list[dict[str, dict[int, Colour]]] = [{} for _ in images]
        for (picture, name, number), colour in zip(asked, self.colours.read(objects), strict=True):
            colours[picture].setdefault(name, {})[number] = colour
        return [Reading(one.boxes, found) for one, found in zip(seen, colours, strict=True)]


def _asked(request: Request, seen: Detected) -> list[tuple[str, int]]:
    """The boxes whose colour is read: the surest of a class whose colour any clause asks for.

    More than a decision needs, so that other thresholds can be tried on the same reading.
    """
    names = sorted({clause.name for clause in request.include if clause.colour is not None})
    return [
        (name, int(number))
        for name in names
        if name in seen.boxes
        for number in seen.boxes[name][:, 4].argsort(kind="stable")[::-1][: PUBLISHED.max_objects]
        if seen.masks[name][number].any()
    ]
