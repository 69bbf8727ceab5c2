"""On-policy rounds: sample, score, pair and train again, each time with the newest checkpoint.

In:    a run with `dpo.rounds`, the manifests of the stages before.
Out:   each round's own view of both. To the stages a round is a run like any other, whose upstream
       has one more entry, `policy`: the checkpoint of the round before.
Rerun: a round is found by what it was made from, so more rounds make the earlier ones no second
       time, and the first round is that of a run without any other.

Later rounds' stages are called `preferences-2`, `dpo-2` and so on.
"""

from collections.abc import Mapping
from dataclasses import replace

from pipeline import student
from pipeline.config import RunConfig
from pipeline.description import Description
from pipeline.tables import Manifest

PREFERENCES, DPO = "preferences", "dpo"  # the stages of a round
POLICY = "policy"


def name_of(stage: str, number: int) -> str:
    """`dpo`, `dpo-2`: a stage of the round of this number."""
    return stage if number < 2 else f"{stage}-{number}"


def count(config: RunConfig) -> int:
    return config.dpo.rounds if config.dpo else 1


def at(config: RunConfig, number: int) -> RunConfig:
    """The run as round `number` sees it, the last of so many; other captions and other batches.

    ValueError for a round that the run does not have.
    """
    if not 1 <= number <= count(config):
        raise ValueError(f"round {number} of run {config.name!r}, which has {count(config)}")
    values, dpo = config.preferences, config.dpo
    assert values is not None
    further = values.seed_per_round * (number - 1)
    changes: dict[str, object] = {
        PREFERENCES: values.model_copy(update={"seed": values.seed + further})
    }
    if dpo is not None:
        changes[DPO] = dpo.model_copy(update={"rounds": number, "seed": dpo.seed + number - 1})
    return config.model_copy(update=changes)


def seen_by(upstream: Mapping[str, Manifest], number: int) -> dict[str, Manifest]:
    """What the stages of a round read: data, student, its own pairs, the last round's weights."""
    seen = {
        name: manifest
        for name, manifest in upstream.items()
        if name.partition("-")[0] not in (PREFERENCES, DPO)
    }
    pairs = name_of(PREFERENCES, number)
    if pairs in upstream:
        seen[PREFERENCES] = upstream[pairs]
    if number > 1:
        seen[POLICY] = upstream[name_of(DPO, number - 1)]
    return seen


def policy_of(upstream: Mapping[str, Manifest]) -> tuple[Manifest, str]:
    """Whose pictures are compared and who learns: the manifest, and the checkpoint's name in it."""
    if POLICY in upstream:
        (name,) = upstream[POLICY].checkpoints
        return upstream[POLICY], name
    return upstream[student.STAGE], student.CHECKPOINT


def named(description: Description, number: int) -> Description:
    """A later round's description says which one it is."""
    if number < 2:
        return description
    return replace(
        description,
        stage=name_of(description.stage, number),
        title=f"{description.title}, round {number}",
    )


def aligned(upstream: Mapping[str, Manifest]) -> list[tuple[str, str]]:
    """Stage and checkpoint of every round, in order."""
    stages = [name for name in upstream if name.partition("-")[0] == DPO]
    in_order = sorted(stages, key=lambda name: int(name.partition("-")[2] or 1))
    return [(stage, name) for stage in in_order for name in upstream[stage].checkpoints]
