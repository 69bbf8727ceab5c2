"""What stands above a stage: the manifests that a run has on disk.

In:    a run, and the stage that is about to be made.
Out:   the manifests of the stages before it, by name.
Rerun: looks again; nothing is made. A stage that is not made yet is a `ValueError` with the
       command that makes it.
"""

from collections.abc import Mapping
from typing import Protocol

from pipeline import (
    alignment,
    captions,
    evaluation,
    features,
    images,
    preferences,
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


def resolve(config: RunConfig, before: str) -> dict[str, Manifest]:
    """The stages before `before`, each found for the contents of those before it."""
    names = [stage.STAGE for stage in STAGES]
    if before not in names:
        raise ValueError(f"no stage is called {before!r}; the stages are {names}")
    upstream: dict[str, Manifest] = {}
    for stage in STAGES[: names.index(before)]:
        found = stage.find(config, upstream)
        if found is None:
            raise ValueError(
                f"{before} of run {config.name!r} needs {stage.STAGE}, which is not made for "
                f"these values yet: prefect deployment run {stage.STAGE}/{config.name}"
            )
        upstream[stage.STAGE] = found
    return upstream
