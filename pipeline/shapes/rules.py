"""GenEval's rules over the embedded world: does a picture show what its caption asks for?

In:    a caption's `Spec` and what the detector found.
Out:   `Outcome` (right or wrong, why in one word and in a sentence), and partial credit.
       Judge and evaluator both decide by these rules (evaluation.md, section 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import pipeline.geneval.rules as published
from pipeline.shapes.grammar import Spec, Thing


@dataclass(frozen=True)
class Box:
    """Pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Found:
    """One object in a picture; `score` is how well it fits its shape, 0 to 1."""

    shape: str
    colour: str
    box: Box
    score: float


@dataclass(frozen=True)
class Outcome:
    """`reason` is a category that is counted, `words` a sentence that a person reads."""

    correct: bool
    reason: str
    words: str


def relations(one: Box, other: Box) -> frozenset[str]:
    """Where `one` is relative to `other`; two relations hold at once on a diagonal."""
    return published.relations(_corners(one), _corners(other))


def _corners(box: Box) -> published.Boxes:
    return np.array([box.left, box.top, box.right, box.bottom], np.float64)


def check(spec: Spec, found: Sequence[Found]) -> Outcome:
    """GenEval's decision. Objects of other shapes than those asked for do not count."""
    for thing in spec.things:
        seen = _of_shape(found, thing.shape)
        if spec.task == "counting" and len(seen) != thing.count:
            return _wrong("wrong count", f"{len(seen)} of {thing.shape}, not {thing.count}")
        if len(seen) < thing.count:
            return _wrong("missing object", f"no {thing.shape}")
        for one in seen[: thing.count]:
            if thing.colour not in (None, one.colour):
                return _wrong("wrong colour", f"{thing.shape} is {one.colour}, not {thing.colour}")
    if spec.relation is not None:
        first, second = (_of_shape(found, thing.shape)[0] for thing in spec.things)
        holds = relations(first.box, second.box)
        if spec.relation not in holds:
            is_at = " and ".join(sorted(holds)) or "at the place of"
            return _wrong("wrong position", f"{first.shape} is {is_at} {second.shape}")
    return Outcome(True, "", "all as asked")


def alignment(spec: Spec, found: Sequence[Found]) -> float:
    """Share of the caption's clauses that hold; 1 exactly when `check` says correct."""
    clauses: list[float] = []
    for thing in spec.things:
        clauses.extend(_clauses(spec, thing, _of_shape(found, thing.shape)))
    if spec.relation is not None:
        first, second = (_of_shape(found, thing.shape)[:1] for thing in spec.things)
        both = bool(first) and bool(second)
        clauses.append(float(both and spec.relation in relations(first[0].box, second[0].box)))
    return sum(clauses) / len(clauses)


def num_extra(spec: Spec, found: Sequence[Found]) -> int:
    """Objects that nobody asked for."""
    asked = {thing.shape: thing.count for thing in spec.things}
    seen: dict[str, int] = {}
    for one in found:
        seen[one.shape] = seen.get(one.shape, 0) + 1
    return sum(max(0, count - asked.get(shape, 0)) for shape, count in seen.items())


def _clauses(spec: Spec, thing: Thing, seen: Sequence[Found]) -> list[float]:
    clauses = [float(bool(seen))]
    if spec.task == "counting":
        clauses.append(max(0.0, 1 - abs(len(seen) - thing.count) / thing.count))
    if thing.colour is not None:
        right = sum(one.colour == thing.colour for one in seen[: thing.count])
        clauses.append(right / thing.count)
    return clauses


def _of_shape(found: Sequence[Found], shape: str) -> list[Found]:
    """Best first, as GenEval picks them."""
    return sorted((one for one in found if one.shape == shape), key=lambda one: -one.score)


def _wrong(reason: str, words: str) -> Outcome:
    return Outcome(False, reason, words)
