"""DPO: the student learns to prefer the better picture of a pair.

In:    `preferences` rows that were kept, `text` states, the student's checkpoint.
Out:   checkpoints/dpo-<fingerprint>/final (averaged weights); beside it log and resumable state.
Rerun: nothing when it is there for these values and inputs; else goes on at the last saved step.

This file is light, for the flow; the training itself is `python -m pipeline.aligning`.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline import student
from pipeline.checkpoints import (
    FINAL,
    TrainingFolder,
    read_rows,
    subprocess_command,
    training_folder,
)
from pipeline.config import DpoConfig, LoopConfig, RunConfig, load_run
from pipeline.description import Description, Plot
from pipeline.plots import loss_plot, preference_plot
from pipeline.preferences import PREFERENCES
from pipeline.rounds import POLICY, count, name_of, policy_of
from pipeline.tables import Manifest, read

STAGE = "dpo"
VERSION = 2
OF_ROUNDS = ("rounds", "reference")
CHECKPOINT = "aligned"  # of the first round; later ones have their number behind it


def slice_of(config: DpoConfig) -> dict[str, object]:
    """The values that change the weights; how the training is run does not."""
    # Which round it is says what it starts from.
    return config.model_dump(mode="json", exclude={*LoopConfig.model_fields, *OF_ROUNDS})


def folder(config: RunConfig, upstream: Mapping[str, Manifest]) -> TrainingFolder:
    assert config.dpo is not None and config.student is not None
    values = {**slice_of(config.dpo), "masking": config.student.masking.model_dump(mode="json")}
    inputs = {stage: upstream[stage].content for stage in ("student", "preferences")}
    if POLICY in upstream:
        inputs[POLICY] = upstream[POLICY].content
        values["reference"] = config.dpo.reference
    return training_folder(config, STAGE, VERSION, values, inputs)


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    return folder(config, upstream).find({checkpoint_of(config): FINAL})


def checkpoint_of(config: RunConfig) -> str:
    """`aligned`, `aligned-2`: the name of the last round's checkpoint."""
    return name_of(CHECKPOINT, count(config))


def reference_of(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[Manifest, str]:
    """What the policy is held against: the checkpoint it starts from, or the student."""
    assert config.dpo is not None
    if config.dpo.reference == "student":
        return upstream[student.STAGE], student.CHECKPOINT
    return policy_of(upstream)


def command(config_file: Path, upstream_file: Path) -> list[str]:
    """The process that trains; the flow starts it and reads its log."""
    dpo = load_run(config_file).dpo
    assert dpo is not None
    return subprocess_command("aligning", dpo.num_processes, config_file, upstream_file)


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    """Pairs in and used, implicit accuracy, winner and loser error against the reference."""
    assert config.dpo is not None
    pairs = read(Path(config.root), upstream["preferences"].snapshots[PREFERENCES.name], ["keep"])
    kept = sum(pairs["keep"].to_pylist())
    log = read_rows(folder(config, upstream).path / "log.jsonl")
    steps = [row["step"] for row in log]
    start, of_start = policy_of(upstream)
    reference, of_reference = reference_of(config, upstream)
    curves = [[row[name] for row in log] for name in ("accuracy", "winner_drift", "loser_drift")]
    return Description(
        stage=STAGE,
        title="DPO",
        rows_in=kept,
        kept=kept,
        rejected=0,
        facts={
            "checkpoint": manifest.checkpoints[checkpoint_of(config)],
            "weights sha256": manifest.content,
            "beta": f"{config.dpo.beta:g}",
            "steps": str(config.dpo.steps),
            "started from": start.checkpoints[of_start],
            "reference": reference.checkpoints[of_reference],
            "preferences": upstream["preferences"].content,
        },
        plots=(
            Plot("DPO loss", loss_plot(steps, [row["loss"] for row in log], label="DPO loss")),
            Plot("Accuracy and errors", preference_plot(steps, *curves)),
        ),
    )
