"""Ablations: studies of one run, each a few points that differ in few values.

In:    `infra/ablations/<run>.yaml`: values of every point, studies with their points and seeds.
Out:   `Study`, and its `Trial`s: one a point and seed, with all overrides of the run.
Rerun: points that have the same values find what another one made: stages are named by values.

A point may be a feedback round (`pipeline.feedback`): its student goes on from another point's, on
more captions, whose tasks have shares by what that point's evaluation says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.config import Frozen, load_run

ABLATIONS = Path(__file__).parent.parent / "infra" / "ablations"
SEED = "$seed"
Values = dict[str, Any]


class FeedbackPoint(Frozen):
    """So many captions more, the tasks by need: (1 - score) ** strength; 0 is the same of each."""

    after: str  # the point that is evaluated and goes on
    num_captions: int = Field(ge=1)
    strength: float = Field(1.0, ge=0)
    floor: float = Field(0.05, ge=0, le=1)
    balance: bool = True  # of all that the student is shown; False: of the new captions alone


class Point(Frozen):
    label: str = Field(min_length=1)
    values: Values = Field({})
    feedback: FeedbackPoint | None = None


class Study(Frozen):
    title: str
    question: str = ""
    # captions, steps: a line over their number, which is counted; label: points side by side.
    axis: Literal["captions", "steps", "label"] = "label"
    reference: str  # the point that the others are compared with
    values: Values = Field({})
    values_of_all: bool = True  # False: without those of every study, as the run is itself
    seeds: tuple[int, ...] | None = Field(None, min_length=1)  # None: those of all studies
    points: tuple[Point, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _labels_fit(self) -> "Study":
        labels = [point.label for point in self.points]
        if len(set(labels)) != len(labels):
            raise ValueError(f"points: their labels must differ, got {labels}")
        if self.reference not in labels:
            raise ValueError(f"reference: {self.reference!r} is no point; they are {labels}")
        plain = [point.label for point in self.points if point.feedback is None]
        for point in self.points:
            if point.feedback and point.feedback.after not in plain:
                raise ValueError(
                    f"points: {point.label!r} goes on after {point.feedback.after!r}, which is "
                    f"no point without feedback; those are {plain}"
                )
        return self


class Ablations(Frozen):
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    values: Values = Field({})  # of every point of every study
    studies: dict[str, Study] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_plain(self) -> "Ablations":
        wrong = [n for n in self.studies if not n.replace("-", "").isalnum() or n != n.lower()]
        if wrong:
            raise ValueError(f"studies: {wrong} are no names; small letters, digits and dashes are")
        return self

    def named(self, study: str | None) -> dict[str, Study]:
        """One study, or all; ValueError with the names that there are."""
        if study is None:
            return dict(self.studies)
        if study not in self.studies:
            raise ValueError(f"study {study!r} is not there; the studies are {list(self.studies)}")
        return {study: self.studies[study]}


@dataclass(frozen=True)
class Trial:
    """A point under one seed."""

    label: str
    seed: int
    overrides: Values
    feedback: FeedbackPoint | None = None


def load_ablations(run: str, path: str | Path | None = None) -> Ablations:
    """Read `infra/ablations/<run>.yaml`, or another file; ValueError says what is wrong in it."""
    place = Path(path) if path else ABLATIONS / f"{Path(run).stem}.yaml"
    if not place.is_file():
        known = sorted(p.stem for p in ABLATIONS.glob("*.yaml"))
        raise ValueError(f"no ablations of run {run!r}: {place} is not there (known: {known})")
    try:
        return Ablations.model_validate(yaml.safe_load(place.read_text("utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{place} is not YAML: {error}") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{place.name}: " + "; ".join(wrong)) from error


def trials(
    ablations: Ablations,
    study: Study,
    overrides: Mapping[str, Any],
    seeds: Sequence[int] | None = None,
) -> list[Trial]:
    """Every point under the first seed, then under the next; `overrides` are stronger than all.

    A feedback round has the values of the point that it goes on from, and its own.
    """
    values = {point.label: point.values for point in study.points}

    def given(point: Point, seed: int) -> Values:
        before = values[point.feedback.after] if point.feedback else {}
        shared = {**(ablations.values if study.values_of_all else {}), **study.values}
        found: Values = seeded({**shared, **before, **point.values, **overrides}, seed)
        return found

    # A round comes after what it goes on from, wherever the study lists it.
    points = sorted(study.points, key=lambda point: point.feedback is not None)
    return [
        Trial(point.label, seed, given(point, seed), point.feedback)
        for seed in seeds or study.seeds or ablations.seeds
        for point in points
    ]


def check(run: str, found: Sequence[Trial]) -> None:
    """Read the run of every trial, so that a wrong value is found before the first one."""
    for trial in found:
        try:
            load_run(run, trial.overrides)
        except ValueError as error:
            raise ValueError(f"point {trial.label!r}: {error}") from error


def seeded(values: Any, seed: int) -> Any:
    """A copy in which `$seed` is the seed."""
    if isinstance(values, dict):
        return {key: seeded(value, seed) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [seeded(value, seed) for value in values]
    return seed if values == SEED else values
