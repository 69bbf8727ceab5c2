"""GenEval's rules over what a detector found: is a picture right, and if not, why?

In:    a `Request`; for each class the detector's boxes (N, 5), in its order: left, top, right,
       bottom (exclusive) in pixels, score. The colours of those objects that were asked.
Out:   the chosen objects, an `Outcome`, and how near each clause was to the other answer.

The published program's decisions (arXiv 2310.11513, `evaluate_images.py`), its quirks among them:
- colour and position are asked of the surest objects alone, as many as the clause counts;
- more objects than asked for are wrong only where an `exclude` says so (counting does);
- a clause whose colour is wrong is no target of a relation; all wrong clauses are told;
- a relation is asked of every pair, and both of two relations hold on a diagonal;
- a score must lie above its threshold, not at it; numbers keep the type that they come in, and the
  published boxes are float32;
- an offset that is no number holds no relation;
- of equal scores the later one is taken as surer (a reversed sort). NumPy's default sort is not
  stable on every processor; here it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geneval.prompts import COUNTING, Clause, Request

Boxes = NDArray[np.floating]  # (N, 5)
Detections = Mapping[str, Boxes]  # class -> boxes
Colours = Mapping[str, Mapping[int, str]]  # class -> number of the box -> colour

LEAST_SCORE = 0.05  # of a detection that is kept at all: no threshold may lie below
SMALLEST_OFFSET = 1e-3  # pixels beyond the slack
SHARE_OF_OFFSET = 0.5  # of the offset's length that lies along an axis: more than that holds

MISSING, COUNT, COLOUR, POSITION = (
    "missing object",
    "wrong count",
    "wrong colour",
    "wrong position",
)


@dataclass(frozen=True)
class Thresholds:
    """The published values; others make scores that compare with nobody's."""

    score: float = 0.3
    counting_score: float = 0.9
    max_objects: int = 16  # of a class
    max_overlap: float = 1.0  # boxes that overlap as much or more count once; 1: all count
    position: float = 0.1  # slack, as a share of the two boxes' sizes

    def __post_init__(self) -> None:
        if min(self.score, self.counting_score) < LEAST_SCORE:
            raise ValueError(
                f"thresholds of {self.score} and {self.counting_score}: detections below "
                f"{LEAST_SCORE} are not kept, so none may lie below it"
            )

    def of(self, tag: str) -> float:
        return self.counting_score if tag == COUNTING else self.score


PUBLISHED = Thresholds()


@dataclass(frozen=True)
class Margin:
    """How far a clause is from the other answer: above 0 it holds, an exclude at 0 too."""

    clause: str  # count | color | position | exclude
    name: str  # of the class
    margin: float  # of score; of CLIP's logits (see `colours`); of the offset's share


@dataclass(frozen=True)
class Outcome:
    """`reason` is a category that is counted, `words` say it of every wrong clause."""

    correct: bool
    reason: str
    words: str


def select(boxes: Boxes, tag: str, thresholds: Thresholds = PUBLISHED) -> list[int]:
    """Numbers of the boxes that count as objects, the surest first."""
    order = np.argsort(boxes[:, 4], kind="stable")[::-1]
    left = order[boxes[order, 4] > thresholds.of(tag)][: thresholds.max_objects].tolist()
    if thresholds.max_overlap == 1:
        return left
    chosen: list[int] = []
    while left:
        best = left.pop(0)
        chosen.append(best)
        left = [n for n in left if overlap(boxes[best], boxes[n]) < thresholds.max_overlap]
    return chosen


def num_extra(request: Request, seen: Detections, thresholds: Thresholds = PUBLISHED) -> int:
    """Objects of the asked classes beyond those asked for, as sure as counting wants them.

    Not a rule of GenEval, which forgives them except in counting. Other classes do not count: a
    photograph holds much that nobody named.
    """
    asked: dict[str, int] = {}
    for clause in request.include:
        asked[clause.name] = asked.get(clause.name, 0) + clause.count
    return sum(
        max(0, len(select(seen[name], COUNTING, thresholds)) - count)
        for name, count in asked.items()
        if name in seen
    )


def overlap(one: Boxes, other: Boxes) -> float:
    """Intersection over union, of boxes whose right and bottom count as inside, as published."""
    shared = _area(np.maximum(one[:2], other[:2]), np.minimum(one[2:4], other[2:4]))
    joined = _area(one[:2], one[2:4]) + _area(other[:2], other[2:4]) - shared
    return shared / joined if joined else 0.0


def _area(top_left: Boxes, bottom_right: Boxes) -> float:
    width, height = np.maximum(bottom_right - top_left + 1, 0)
    return float(width * height)


def relations(one: Boxes, other: Boxes, slack: float = PUBLISHED.position) -> frozenset[str]:
    """Where box `one` lies as seen from `other`; on a diagonal two relations hold."""
    right, down = shares(one, other, slack)
    holds = {
        "left of": right < -SHARE_OF_OFFSET,
        "right of": right > SHARE_OF_OFFSET,
        "above": down < -SHARE_OF_OFFSET,
        "below": down > SHARE_OF_OFFSET,
    }
    return frozenset(name for name, true in holds.items() if true)


def shares(one: Boxes, other: Boxes, slack: float) -> tuple[float, float]:
    """The offset of `one` from `other` less the slack, as shares of its length: right, down."""
    corners = np.stack([one[:4], other[:4]]).reshape(2, 2, 2)  # box, corner, axis
    with np.errstate(invalid="ignore"):  # of boxes without end: no number, and no relation
        sizes = np.abs(corners[:, 1] - corners[:, 0])
        centres = corners.mean(axis=1)
        offset = centres[0] - centres[1]
        beyond = np.maximum(np.abs(offset) - slack * (sizes[0] + sizes[1]), 0) * np.sign(offset)
        if np.all(np.abs(beyond) < SMALLEST_OFFSET):
            return 0.0, 0.0
        right, down = beyond / np.linalg.norm(offset)
    return float(right), float(down)


# --- the decision -------------------------------------------------------------------------------


def coloured(
    request: Request, detections: Detections, thresholds: Thresholds = PUBLISHED
) -> set[tuple[str, int]]:
    """Class and number of each box whose colour the decision will ask for."""
    asked = set()
    for clause in request.include:
        found = _found(clause.name, request.tag, detections, thresholds)[: clause.count]
        if clause.colour is not None and len(found) == clause.count:
            asked |= {(clause.name, number) for number in found}
    return asked


def decide(
    request: Request,
    detections: Detections,
    colours: Colours,
    thresholds: Thresholds = PUBLISHED,
) -> Outcome:
    """Right only when every clause holds. A colour that is asked for and not there: KeyError."""
    wrong: list[tuple[str, str]] = []
    groups: list[Sequence[Boxes] | None] = []
    for clause in request.include:
        seen = _found(clause.name, request.tag, detections, thresholds)
        found = seen[: clause.count]
        why = _miscounted(clause, request.tag, len(seen)) or _miscoloured(clause, found, colours)
        group = [detections[clause.name][number] for number in found]
        if why is None and clause.relation is not None:
            why = _misplaced(clause, group, groups[clause.target], thresholds.position)
        wrong += [why] if why else []
        groups.append(None if why else group)
    for clause in request.exclude:
        seen = _found(clause.name, request.tag, detections, thresholds)
        if len(seen) >= clause.count:
            wrong.append((COUNT, f"{len(seen)} of {clause.name}, fewer than {clause.count} asked"))
    if not wrong:
        return Outcome(True, "", "all as asked")
    return Outcome(False, wrong[0][0], "; ".join(words for _, words in wrong))


def _found(
    name: str, tag: str, detections: Detections, thresholds: Thresholds = PUBLISHED
) -> list[int]:
    return select(detections[name], tag, thresholds) if name in detections else []


def _miscounted(clause: Clause, tag: str, seen: int) -> tuple[str, str] | None:
    if seen >= clause.count:
        return None
    if tag == COUNTING:
        return COUNT, f"{seen} of {clause.name}, {clause.count} asked"
    if clause.count == 1:
        return MISSING, f"no {clause.name}"
    return MISSING, f"{seen} of {clause.name}, {clause.count} asked"


def _miscoloured(clause: Clause, found: Sequence[int], colours: Colours) -> tuple[str, str] | None:
    if clause.colour is None:
        return None
    seen = [colours[clause.name][number] for number in found]
    if seen.count(clause.colour) >= clause.count:
        return None
    others = " and ".join(dict.fromkeys(colour for colour in seen if colour != clause.colour))
    return COLOUR, f"{clause.name} is {others}, not {clause.colour}"


def _misplaced(
    clause: Clause,
    found: Sequence[Boxes],
    targets: Sequence[Boxes] | None,
    slack: float,
) -> tuple[str, str] | None:
    if targets is None:
        return POSITION, f"nothing that {clause.name} could be {clause.relation}"
    for one in found:
        for other in targets:
            holds = relations(one, other, slack)
            if clause.relation not in holds:
                where = " and ".join(sorted(holds)) or "in the place of"
                return POSITION, f"{clause.name} is {where} the other, not {clause.relation}"
    return None


# --- margins ------------------------------------------------------------------------------------


def margins(
    request: Request,
    detections: Detections,
    leads: Mapping[str, Mapping[int, Mapping[str, float]]],
    thresholds: Thresholds = PUBLISHED,
) -> list[Margin]:
    """A margin a clause. `leads`: class, box and colour to how far that colour leads the others."""
    found: list[Margin] = []
    least = thresholds.of(request.tag)
    groups: list[list[Boxes]] = []
    for clause in request.include:
        numbers = _found(clause.name, request.tag, detections, thresholds)[: clause.count]
        groups.append([detections[clause.name][number] for number in numbers])
        found.append(Margin("count", clause.name, _beyond(detections, clause, least)))
        if clause.colour is not None and len(numbers) == clause.count:
            lead = min(leads[clause.name][number][clause.colour] for number in numbers)
            found.append(Margin("color", clause.name, lead))
        if clause.relation is not None and groups[-1] and groups[clause.target]:
            share = _least_share(clause, groups[-1], groups[clause.target], thresholds.position)
            found.append(Margin("position", clause.name, share))
    for clause in request.exclude:
        found.append(Margin("exclude", clause.name, -_beyond(detections, clause, least)))
    return found


def _beyond(detections: Detections, clause: Clause, least: float) -> float:
    """By how much the last object that a clause needs is surer; with too few, its score is 0."""
    boxes = detections.get(clause.name)
    if boxes is None or len(boxes) < clause.count:
        return -least
    return float(np.sort(boxes[:, 4])[-clause.count] - least)  # in the scores' own type


def _least_share(
    clause: Clause, found: Sequence[Boxes], targets: Sequence[Boxes], slack: float
) -> float:
    """How far the worst pair is from holding the relation, as a share of its offset."""
    axis = 0 if clause.relation in ("left of", "right of") else 1
    sign = 1 if clause.relation in ("right of", "below") else -1
    pairs = [shares(one, other, slack)[axis] for one in found for other in targets]
    return min(sign * share for share in pairs) - SHARE_OF_OFFSET
