"""What stands above a stage: the manifests that a run has on disk.

In:    a run, and the stage that is about to be made.
Out:   the manifests of the stages before it, by name.
Rerun: looks again; nothing is made. A stage that is not made yet is a `ValueError` with the
       command that makes it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from pipeline import (
    alignment,
    captions,
    evaluation,
    features,
    images,
    preferences,
    rounds,
    student,
    verdicts,
)
from pipeline.config import RunConfig
from pipeline.tables import Manifest


class Findable(Protocol):
    @property
    def STAGE(self) -> str: ...  # noqa: N802

    def find(self, config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None: ...
    def places(self, config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]: ...


STAGES: tuple[Findable, ...] = (
    captions,
    images,
    verdicts,
    features,
    student,
    preferences,
    alignment,
    evaluation,
)
# Which stages each one reads rows or weights of.
READS = {
    "captions": (),
    "images": ("captions",),
    "verdicts": ("images",),
    "features": ("captions", "images", "verdicts"),
    "student": ("features",),
    "preferences": ("images", "verdicts", "features", "student"),
    "dpo": ("features", "student", "preferences"),
    "evaluate": ("student", "dpo"),
}


class Step(NamedTuple):
    """A stage in the order of a run; those of a round have its number, others 0."""

    name: str
    stage: Findable
    round: int = 0


def steps(config: RunConfig) -> list[Step]:
    """Everything in the order of the data, each on-policy round in its turn."""
    before, looped, after = STAGES[:5], STAGES[5:7], STAGES[7:]
    return [
        *(Step(stage.STAGE, stage) for stage in before),
        *(
            Step(rounds.name_of(stage.STAGE, number), stage, number)
            for number in range(1, rounds.count(config) + 1)
            for stage in looped
        ),
        *(Step(stage.STAGE, stage) for stage in after),
    ]


def resolve(config: RunConfig, before: str) -> dict[str, Manifest]:
    """The stages before `before`, each found for the contents of those before it."""
    names = [step.name for step in steps(config)]
    if before not in names:
        raise ValueError(f"no stage is called {before!r}; the stages are {names}")
    return _found(config, before, steps(config)[: names.index(before)])


def found_of(config: RunConfig, last: str) -> dict[str, Manifest]:
    """The manifests of the stages up to and with `last`."""
    names = [step.name for step in steps(config)]
    return _found(config, "what follows it", steps(config)[: names.index(last) + 1])


def _found(config: RunConfig, before: str, wanted: Sequence[Step]) -> dict[str, Manifest]:
    upstream: dict[str, Manifest] = {}
    for name, stage, number in wanted:
        if number:
            seen = rounds.seen_by(upstream, number)
            found = stage.find(rounds.at(config, number), seen)
        else:
            found = stage.find(config, upstream)
        if found is None:
            which = f" --param round={number}" if number > 1 else ""
            raise ValueError(
                f"{before} of run {config.name!r} needs {name}, which is not made for "
                f"these values yet: prefect deployment run {stage.STAGE}/{config.name}{which}"
            )
        upstream[name] = found
    return upstream
