"""The student: pre-trained at its first resolution, then grown to the next.

In:    `text` and `features_<px>` tables, through `pipeline.batches`.
Out:   checkpoints/student-<fingerprint>/final (averaged weights), and beside it a folder a phase
       with its log and resumable state, `curve.jsonl` (score against samples seen) and
       `samples/step-*.png`.
Rerun: nothing when it is there for these values and inputs; else goes on at the last saved step.

Flips are never applied: a mirrored picture makes "left of" a lie (lightgen.md 2.3). Torch is
loaded by `python -m pipeline.student` alone; what a flow asks for (find, command) is light.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import RunConfig, StudentConfig
from pipeline.description import Description, Picture, Plot
from pipeline.pictures import Cell, steps_sheet
from pipeline.plots import learning_curve, loss_plot
from pipeline.runs import (
    TrainingFolder,
    read_rows,
    subprocess_command,
    trained_manifest,
    training_folder,
)
from pipeline.tables import Manifest

STAGE = "student"
VERSION = 1
CHECKPOINT = "student"
NUM_SHOWN = 8  # pictures a row of the sample sheet


def slice_of(config: StudentConfig) -> dict[str, object]:
    """The values that change the weights; how often to log or save does not."""
    return config.model_dump(
        mode="json", exclude={"checkpoint_every", "log_every", "sample_every", "num_processes"}
    )


def folder(config: RunConfig, upstream: Mapping[str, Manifest]) -> TrainingFolder:
    assert config.student is not None
    inputs = upstream["features"].content
    return training_folder(config, STAGE, VERSION, slice_of(config.student), {"features": inputs})


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    return trained_manifest(config, folder(config, upstream))


def command(config: RunConfig, config_file: Path, upstream_file: Path) -> list[str]:
    """The process that trains; the flow starts it and reads its log."""
    assert config.student is not None
    return subprocess_command("student", config.student.num_processes, config_file, upstream_file)


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    """Loss, learning curve, samples by step; counts are feature rows, all of them trained on."""
    assert config.student is not None
    place = folder(config, upstream)
    rows = sum(
        snapshot.rows
        for name, snapshot in upstream["features"].snapshots.items()
        if name.startswith("features")
    )
    log, marks, offset = [], {}, 0
    for index, phase in enumerate(config.student.phases):
        marks[float(offset)] = f"{phase.image_size} px"
        for row in read_rows(place.path / phase_name(index, phase.image_size) / "log.jsonl"):
            log.append((offset + row["step"], row["loss"]))
        offset += phase.steps
    curve = read_rows(place.path / "curve.jsonl")
    plots = [Plot("Training loss", loss_plot(*zip(*log, strict=True), marks=marks))] if log else []
    if curve:
        tasks = {task: [row["scores"][task] for row in curve] for task in curve[0]["scores"]}
        plots.append(
            Plot("Learning curve", learning_curve([row["samples"] for row in curve], tasks))
        )
    return Description(
        stage=STAGE,
        title="Student",
        rows_in=rows,
        kept=rows,
        rejected=0,
        facts={
            "checkpoint": manifest.checkpoints[CHECKPOINT],
            "weights sha256": manifest.content,
            "steps": " + ".join(f"{p.steps} at {p.image_size} px" for p in config.student.phases),
            "features": upstream["features"].content,
        },
        plots=tuple(plots),
        pictures=_sample_sheets(place.path, curve),
    )


def _sample_sheets(place: Path, curve: list[dict[str, object]]) -> tuple[Picture, ...]:
    rows = [
        (f"{row['samples']:,} seen, {row['image_size']} px", cells)
        for row in curve
        if (cells := _cells(place / "samples" / f"{row['name']}.png", row["prompts"]))
    ]
    return (Picture("Samples by step", steps_sheet(rows)),) if rows else ()


def _cells(strip: Path, prompts: object) -> list[Cell]:
    """Cut a strip of square pictures into cells with their prompts."""
    assert isinstance(prompts, list)
    if not strip.is_file():
        return []
    with Image.open(strip) as picture:
        side = picture.height
        return [
            Cell(picture.crop((n * side, 0, (n + 1) * side, side)).copy(), prompt)
            for n, prompt in enumerate(prompts)
        ]


def phase_name(index: int, image_size: int) -> str:
    return f"phase-{index}-{image_size}"
