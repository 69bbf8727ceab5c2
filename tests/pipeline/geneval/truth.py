"""Detections of which it is known whether the picture is right: made right, then perhaps spoiled.

A picture has what its prompt asks for, objects that nobody asked for, and faint ones. Half of the
pictures get one fault of a kind that their prompt allows; decoys that a careless scorer would take
for a rescue stand beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.geneval.prompts import CLASSES, COLOURS, COUNTING, RELATIONS, Request

SIDE = 40.0
WAYS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass
class Made:
    """One picture: an object is [left, top, right, bottom, score] with a colour."""

    request: Request
    objects: dict[str, list[tuple[list[float], str]]] = field(default_factory=dict)
    fault: str = ""

    @property
    def detections(self) -> dict[str, np.ndarray]:
        return {
            name: np.array([box for box, _ in each], np.float32).reshape(-1, 5)
            for name, each in self.objects.items()
        }

    @property
    def colours(self) -> dict[str, dict[int, str]]:
        return {
            name: {number: colour for number, (_, colour) in enumerate(each)}
            for name, each in self.objects.items()
        }


def made(request: Request, rng: np.random.Generator) -> Made:
    picture = _right(request, rng)
    least = 0.9 if request.tag == COUNTING else 0.3
    faults = [FAULTS["missing"]]
    faults += [FAULTS["colour"]] if any(c.colour for c in request.include) else []
    faults += [FAULTS["place"]] if any(c.relation for c in request.include) else []
    faults += [FAULTS["more"]] if request.exclude else []
    if rng.random() < 0.5:
        faults[rng.integers(len(faults))](picture, least, rng)
        picture.fault = "spoiled"
    for each in picture.objects.values():
        rng.shuffle(each)  # a detector tells them in any order
    return picture


def _right(request: Request, rng: np.random.Generator) -> Made:
    picture = Made(request)
    least = 0.9 if request.tag == COUNTING else 0.3
    centres: list[np.ndarray] = []
    for clause in request.include:
        centre = rng.uniform(150, 350, 2)
        if clause.relation is not None:
            centre = centres[clause.target] + np.array(WAYS[clause.relation]) * rng.uniform(90, 130)
        centres.append(centre)
        for _ in range(clause.count):
            score = float(rng.uniform(least + 0.01, 0.999))
            colour = clause.colour or str(rng.choice(COLOURS))
            here = centre + (0 if request.tag == "position" else rng.uniform(-90, 90, 2))
            _add(picture, clause.name, here, score, colour)
    asked = {clause.name for clause in request.include}
    for name in rng.choice([name for name in CLASSES if name not in asked], 3, replace=False):
        _add(picture, str(name), rng.uniform(50, 400, 2), float(rng.random()), "red")
    for name in asked:  # too faint to count
        _add(picture, name, rng.uniform(50, 400, 2), float(rng.uniform(0, least)), "blue")
    return picture


def _add(picture: Made, name: str, centre: np.ndarray, score: float, colour: str) -> None:
    x, y = centre
    box = [x - SIDE / 2, y - SIDE / 2, x + SIDE / 2, y + SIDE / 2, score]
    picture.objects.setdefault(name, []).append((box, colour))


def _missing(picture: Made, least: float, rng: np.random.Generator) -> None:
    """One of the objects is exactly at the threshold, which is not above it."""
    name = picture.request.include[-1].name
    sure = [n for n, (box, _) in enumerate(picture.objects[name]) if box[4] > least]
    picture.objects[name][sure[0]][0][4] = least


def _more(picture: Made, least: float, rng: np.random.Generator) -> None:
    name = picture.request.exclude[0].name
    _add(picture, name, rng.uniform(50, 400, 2), float(rng.uniform(least + 0.01, 0.999)), "red")


def _colour(picture: Made, least: float, rng: np.random.Generator) -> None:
    """The surest object has another colour; a fainter one of the right colour rescues nothing."""
    clause = next(c for c in picture.request.include if c.colour)
    others = [colour for colour in COLOURS if colour != clause.colour]
    each = picture.objects[clause.name]
    best = max(range(len(each)), key=lambda number: each[number][0][4])
    box, _ = each[best]
    each[best] = (box, str(rng.choice(others)))
    decoy = float(rng.uniform(least + 0.001, max(box[4], least + 0.002)))
    if decoy < box[4]:
        _add(picture, clause.name, rng.uniform(50, 400, 2), decoy, str(clause.colour))


def _place(picture: Made, least: float, rng: np.random.Generator) -> None:
    """The object stands on another side of its target, or upon it."""
    clause = next(c for c in picture.request.include if c.relation)
    target = picture.request.include[clause.target]
    each = picture.objects[clause.name]
    best = max(range(len(each)), key=lambda number: each[number][0][4])
    other = max(picture.objects[target.name], key=lambda one: one[0][4])[0]
    way = str(rng.choice([name for name in RELATIONS if name != clause.relation]))
    offset = np.array(WAYS[way]) * rng.choice([0.0, 110.0])
    box = each[best][0]
    box[:4] = [other[n] + offset[n % 2] for n in range(4)]


FAULTS: dict[str, Callable[[Made, float, np.random.Generator], None]] = {
    "missing": _missing,
    "more": _more,
    "colour": _colour,
    "place": _place,
}
