"""DPO: the student learns to prefer the better picture of a pair.

In:    `preferences` rows that were kept, `text` states, the student's checkpoint.
Out:   checkpoints/dpo-<fingerprint>/final (averaged weights); beside it log and resumable state.
Rerun: nothing when it is there for these values and inputs; else goes on at the last saved step.

This file is light, for the flow; the training itself is `python -m pipeline.aligning`.
"""

from collections.abc import Mapping
from pathlib import Path

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
from pipeline.tables import Manifest, read

STAGE = "dpo"
VERSION = 2
CHECKPOINT = "aligned"


def slice_of(config: DpoConfig) -> dict[str, object]:
    """The values that change the weights; how the training is run does not."""
    return config.model_dump(mode="json", exclude=set(LoopConfig.model_fields))


def folder(config: RunConfig, upstream: Mapping[str, Manifest]) -> TrainingFolder:
    assert config.dpo is not None and config.student is not None
    values = {**slice_of(config.dpo), "masking": config.student.masking.model_dump(mode="json")}
    inputs = {stage: upstream[stage].content for stage in ("student", "preferences")}
    return training_folder(config, STAGE, VERSION, values, inputs)


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    return folder(config, upstream).find({CHECKPOINT: FINAL})


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (folder(config, upstream).relative,)


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
    curves = [[row[name] for row in log] for name in ("accuracy", "winner_drift", "loser_drift")]
    return Description(
        stage=STAGE,
        title="DPO",
        rows_in=kept,
        kept=kept,
        rejected=0,
        facts={
            "checkpoint": manifest.checkpoints[CHECKPOINT],
            "weights sha256": manifest.content,
            "beta": f"{config.dpo.beta:g}",
            "steps": str(config.dpo.steps),
            "reference": upstream["student"].checkpoints["student"],
            "preferences": upstream["preferences"].content,
        },
        plots=(
            Plot("DPO loss", loss_plot(steps, [row["loss"] for row in log], label="DPO loss")),
            Plot("Accuracy and errors", preference_plot(steps, *curves)),
        ),
    )
