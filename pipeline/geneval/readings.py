"""What was read from one picture, kept so that it can be judged again without a model.

In:    a picture's detections, the colours of the objects whose colour is asked for.
Out:   a `Reading`, which is JSON and back; the record of a decision with its margins.

JSON of a reading: {"detections": {class: [[left, top, right, bottom, score], ...]},
"colors": {class: {number of the box: {"color": name, "logits": [ten]}}}}. Numbers are the shortest
that read back as the same float32. A line of another program may name the colours alone, as
{"dog": ["red", "blue"]}, one a box.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.geneval.prompts import CLASSES, COLOURS, Request
from pipeline.geneval.rules import (
    PUBLISHED,
    Detections,
    Outcome,
    Thresholds,
    coloured,
    decide,
    margins,
    select,
)


@dataclass(frozen=True)
class Colour:
    logits: tuple[float, ...]  # in the order of COLOURS

    @property
    def name(self) -> str:
        return COLOURS[self.logits.index(max(self.logits))]

    @property
    def leads(self) -> Mapping[str, float]:
        """How far each colour's logit lies above the best of the others; negative: below."""
        return {
            colour: logit - max(self.logits[:number] + self.logits[number + 1 :])
            for number, (colour, logit) in enumerate(zip(COLOURS, self.logits, strict=True))
        }


@dataclass(frozen=True, eq=False)  # arrays have no one answer
class Reading:
    boxes: Detections
    colours: Mapping[str, Mapping[int, Colour]] = field(default_factory=dict)

    def outcome(self, request: Request, thresholds: Thresholds = PUBLISHED) -> Outcome:
        for name, number in sorted(coloured(request, self.boxes, thresholds)):
            if number not in self.colours.get(name, {}):
                raise ValueError(
                    f"the colour of {name} {number} was not read: score the pictures again"
                )
        named = {
            name: {number: colour.name for number, colour in boxes.items()}
            for name, boxes in self.colours.items()
        }
        return decide(request, self.boxes, named, thresholds)

    def record(self, request: Request, thresholds: Thresholds = PUBLISHED) -> dict[str, Any]:
        """The reading and the margins of its decision, for JSON."""
        leads = {
            name: {number: colour.leads for number, colour in boxes.items()}
            for name, boxes in self.colours.items()
        }
        told = [
            {"clause": each.clause, "class": each.name, "margin": round(each.margin, 6)}
            for each in margins(request, self.boxes, leads, thresholds)
        ]
        return {"margins": told, **self.to_json()}

    def to_json(self) -> dict[str, Any]:
        return {
            "detections": {name: rows(boxes) for name, boxes in self.boxes.items()},
            "colors": {
                name: {
                    str(number): {"color": colour.name, "logits": [*map(short, colour.logits)]}
                    for number, colour in boxes.items()
                }
                for name, boxes in self.colours.items()
            },
        }

    @staticmethod
    def from_json(value: Mapping[str, Any], place: str) -> "Reading":
        boxes = {}
        for name, given in _mapping(value, "detections", place).items():
            if name not in CLASSES:
                raise ValueError(f"{place}: detections of {name!r}, none of the 80 classes")
            boxes[name] = _boxes(given, f"{place}: detections of {name}")
        colours = {
            name: {
                int(number): _colour(colour, f"{place}: color of {name} {number}")
                for number, colour in _numbered(each, f"{place}: colors of {name}").items()
            }
            for name, each in _mapping(value, "colors", place).items()
        }
        return Reading(boxes, colours)

    def chosen(self, request: Request, thresholds: Thresholds = PUBLISHED) -> Detections:
        """The boxes that count as objects under the request's threshold, the surest first."""
        picked = {
            name: boxes[select(boxes, request.tag, thresholds)]
            for name, boxes in self.boxes.items()
        }
        return {name: boxes for name, boxes in picked.items() if len(boxes)}


def rows(boxes: "np.ndarray[Any, Any]") -> list[list[float]]:
    """For JSON: what was read from it goes back as it was, a detector's float32 in short."""
    if boxes.dtype == np.float64:
        wide: list[list[float]] = boxes.tolist()
        return wide
    return [[short(value) for value in row] for row in boxes]


def short(value: float) -> float:
    """The shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def _boxes(given: Any, place: str) -> "np.ndarray[Any, Any]":
    try:
        boxes = np.array(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: not rows of numbers: {given!r:.60}") from error
    if not boxes.size:
        return np.zeros((0, 5))
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(
            f"{place}: expected rows of left, top, right, bottom, score; got {given!r:.60}"
        )
    return boxes


def _colour(given: Any, place: str) -> Colour:
    """Ten logits; or a bare name, as another program may know no more."""
    if isinstance(given, str):
        given = {"logits": [float(given == name) for name in COLOURS], "color": given}
    logits = given.get("logits") if isinstance(given, dict) else None
    if not isinstance(logits, list) or len(logits) != len(COLOURS):
        raise ValueError(f"{place}: expected {len(COLOURS)} logits, got {given!r:.60}")
    colour = Colour(tuple(map(float, logits)))
    if given["color"] != colour.name:
        raise ValueError(f"{place}: says {given['color']!r}, but its logits say {colour.name!r}")
    return colour


def _numbered(each: Any, place: str) -> Mapping[str, Any]:
    """By the number of the box; a list has one a box."""
    if isinstance(each, list):
        return {str(number): colour for number, colour in enumerate(each)}
    if not isinstance(each, dict) or not all(number.isdecimal() for number in each):
        raise ValueError(f"{place}: expected an object by number of the box, got {each!r:.60}")
    return each


def _mapping(value: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    found = value.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{place}: {key} must be an object by class, got {found!r:.60}")
    return found
