"""The student: pre-trained at its first resolution, then grown to the next.

In:    `text` and `features_<px>` tables, through `pipeline.batches`.
Out:   checkpoints/student-<fingerprint>/final (averaged weights), `untrained` (the start); beside
       them a folder a phase with its log and resumable state, `curve.jsonl` (score against samples
       seen) and `samples/seen-*.png`.
Rerun: nothing when it is there for these values and inputs; else goes on at the last saved step.

This file is light, for the flow; the training itself is `python -m pipeline.pretraining`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.checkpoints import (
    CURVE,
    FINAL,
    SAMPLES,
    TrainingFolder,
    read_rows,
    subprocess_command,
    training_folder,
)
from pipeline.config import LoopConfig, RunConfig, StudentConfig, load_run
from pipeline.description import Description, Grid, Picture, Plot
from pipeline.encoders import weights_identity
from pipeline.pictures import Cell, steps_sheet
from pipeline.plots import learning_curve, loss_plot
from pipeline.roots import LARGE, fetched
from pipeline.subsets import learned_rows
from pipeline.tables import Manifest

STAGE = "student"
VERSION = 2
CHECKPOINT = "student"
UNTRAINED = "untrained"  # what it started from: the floor of every score


def slice_of(config: StudentConfig) -> dict[str, object]:
    """The values that change the weights; how the training is run does not."""
    left_out = {*LoopConfig.model_fields, "sample_every", "until"}
    # Students of a time that knew none of these are the same ones.
    later = ("subset", "task_shares", "text_buckets")
    left_out |= {name for name in later if not getattr(config, name)}
    values = config.model_dump(mode="json", exclude=left_out)
    # What the folder holds, not where it lies.
    return values | ({"start": weights_identity(config.start, None)} if config.start else {})


def folder(config: RunConfig, upstream: Mapping[str, Manifest]) -> TrainingFolder:
    assert config.student is not None
    inputs = upstream["features"].content
    whole = training_folder(config, STAGE, VERSION, slice_of(config.student), {"features": inputs})
    return whole.ending(config.student.until, sum(p.steps for p in config.student.phases))


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    return folder(config, upstream).find({UNTRAINED: UNTRAINED, CHECKPOINT: FINAL})


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (folder(config, upstream).relative,)


def command(config_file: Path, upstream_file: Path) -> list[str]:
    """The process that trains; the flow starts it and reads its log."""
    student = load_run(config_file).student
    assert student is not None
    return subprocess_command("pretraining", student, config_file, upstream_file)


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    """Loss, learning curve, samples by step; counts are feature rows, those trained on kept."""
    assert config.student is not None
    place = fetched(folder(config, upstream).kept, LARGE)
    features = upstream["features"].snapshots
    rows = sum(table.rows for name, table in features.items() if name.startswith("features"))
    left_out = rows - learned_rows(config, upstream) if config.student.subset else 0
    curve = read_rows(place / CURVE)
    return Description(
        stage=STAGE,
        title="Student",
        rows_in=rows,
        kept=rows - left_out,
        rejected=left_out,
        reasons={"not in the subset": left_out} if left_out else {},
        facts={
            "checkpoint": manifest.checkpoints[CHECKPOINT],
            "weights sha256": manifest.content,
            "steps": _steps(config.student),
            "features": upstream["features"].content,
            **_emphasis(config.student),
        },
        tables=_looks(curve),
        plots=(_loss(config.student, place), *_curve(curve)),
        pictures=_sheet(place, curve),
    )


def _steps(student: StudentConfig) -> str:
    return " + ".join(f"{phase.steps} at {phase.image_size} px" for phase in student.trained)


def _emphasis(student: StudentConfig) -> dict[str, str]:
    total = sum(student.task_shares.values())
    told = (f"{task} {share / total:.0%}" for task, share in student.task_shares.items())
    return {"shown by task": ", ".join(told)} if student.task_shares else {}


def _loss(student: StudentConfig, place: Path) -> Plot:
    steps, losses, marks, offset = [], [], {}, 0
    for index, phase in enumerate(student.trained):
        marks[float(offset)] = f"{phase.image_size} px"
        for row in read_rows(place / phase_name(index, phase.image_size) / "log.jsonl"):
            steps.append(float(offset + row["step"]))
            losses.append(row["loss"])
        offset += phase.steps
    return Plot("Training loss", loss_plot(steps, losses, marks=marks))


def _curve(curve: list[dict[str, Any]]) -> tuple[Plot, ...]:
    """The first resolution's points: another one is another scale of difficulty."""
    rows = [row for row in curve if row["image_size"] == curve[0]["image_size"]]
    if not rows:
        return ()
    tasks = {task: [row["scores"][task] for row in rows] for task in rows[0]["scores"]}
    plot = learning_curve([row["samples"] for row in rows], tasks)
    return (Plot(f"Learning curve at {rows[0]['image_size']} px", plot),)


def _looks(curve: list[dict[str, Any]]) -> tuple[Grid, ...]:
    """Every look at the student in numbers."""
    if not curve:
        return ()
    tasks = list(curve[0]["scores"])
    cells = tuple(
        (f"{row['samples']:,}", f"{row['image_size']}", *(f"{row['scores'][t]:.2f}" for t in tasks))
        for row in curve
    )
    return (Grid("Share of correct pictures by look", ("samples seen", "px", *tasks), cells),)


def _sheet(place: Path, curve: list[dict[str, Any]]) -> tuple[Picture, ...]:
    """A row a look at the student while it learned: the same prompts and seeds each time."""
    rows = []
    for row in curve:
        strip = place / SAMPLES / row["strip"]
        if strip.is_file():
            label = f"{row['samples']:,} seen, {row['image_size']} px"
            rows.append((label, cells_of(strip)))
    if not rows:
        return ()
    return (Picture("Samples by step", steps_sheet(curve[0]["prompts"], rows)),)


def cells_of(strip: Path) -> list[Cell]:
    """Cut a strip of square pictures into cells."""
    with Image.open(strip) as picture:
        side = picture.height
        return [
            Cell(picture.crop((n * side, 0, (n + 1) * side, side)).copy())
            for n in range(picture.width // side)
        ]


def phase_name(index: int, image_size: int) -> str:
    return f"phase-{index}-{image_size}"
