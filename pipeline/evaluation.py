"""Evaluation: every checkpoint draws the evaluators' prompts, and each picture is right or wrong.

In:    the checkpoints of `student` and, where the run has one, of `dpo`.
Out:   `scores`, one row a picture. Prompt and seed are the same for every checkpoint, so that
       pictures before and after alignment differ by the weights alone.
Rerun: a new checkpoint draws its own pictures; those of the others stay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import evaluators, rounds, student
from pipeline.captions import count, spread
from pipeline.config import EvaluationConfig, EvaluatorConfig, RunConfig
from pipeline.description import Description, Grid, Picture, Plot
from pipeline.drawing import checkpoint_folder, draw
from pipeline.encoders import autoencoder_identity, text_encoder_identity
from pipeline.evaluators import Evaluator, Prompt
from pipeline.images import png, seed_of
from pipeline.pictures import Cell, contact_sheet, side_by_side
from pipeline.plots import score_bars
from pipeline.tables import (
    NO_COMPRESSION,
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    identifier,
    read,
    take,
)

STAGE = "evaluate"
PROMPTS_PER_SHARD = 100
SHOWN = 18
MEAN = "mean"
IN_ORDER = (  # of training: a difference is that of the last two
    (student.STAGE, student.UNTRAINED),
    (student.STAGE, student.CHECKPOINT),
)  # and every round of alignment
WRONG = "wrong"  # where the evaluator names no reason

SCORES = Table(
    name="scores",
    version=1,
    schema=pa.schema(
        [
            pa.field("evaluator", pa.string(), False),
            pa.field("checkpoint", pa.string(), False),  # untrained | student | aligned
            pa.field("task", pa.string(), False),
            pa.field("prompt_index", pa.int32(), False),
            pa.field("prompt", pa.string(), False),
            pa.field("image_index", pa.int32(), False),
            pa.field("seed", pa.int64(), False),
            pa.field("image", pa.large_binary(), False, NO_COMPRESSION),  # PNG
            pa.field("correct", pa.bool_(), False),
            pa.field("reason", pa.string(), False),  # "" when correct
        ]
    ),
)


class Order(NamedTuple):
    """One picture to draw."""

    prompt: Prompt
    image_index: int
    seed: int


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    snapshot = _folder(config).find(_inputs(config, upstream))
    return Manifest.of(STAGE, {STAGE: snapshot}) if snapshot else None


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folder = _folder(config)
    works = []
    for stage, checkpoint in checkpoints(upstream):
        for number, evaluator in enumerate(_values(config).evaluators):
            orders = orders_of(config, evaluator)
            size = PROMPTS_PER_SHARD * _evaluator(evaluator).images_per_prompt
            for first in range(0, len(orders), size):
                part = orders[first : first + size]
                weights = upstream[stage].content
                judged_by = evaluator.model_dump(mode="json")
                name = identifier(
                    folder.fingerprint, checkpoint, weights, judged_by, _facts_of(part)
                )
                works.append(Work(name, (stage, checkpoint, str(number)), first, len(part)))
    return works


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    stage, checkpoint, number = work.sources
    evaluator = _values(config).evaluators[int(number)]
    orders = orders_of(config, evaluator)[work.first : work.first + work.rows]

    def rows() -> Iterator[pa.RecordBatch]:
        values, done = _values(config), 0
        drawn = draw(
            config,
            checkpoint_folder(config, upstream[stage], checkpoint),
            [order.prompt.text for order in orders],
            [order.seed for order in orders],
            image_size=values.image_size,
            sampling=values.sampling,
        )
        for images in drawn:
            part = orders[done : done + len(images)]
            yield score_images(_evaluator(evaluator), checkpoint, part, images)
            done += len(images)
            progress(done)

    return [_folder(config).write_shard(work.name, rows())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    snapshot = _folder(config).commit(shards, _inputs(config, upstream))
    return Manifest.of(STAGE, {STAGE: snapshot})


def checkpoints(upstream: Mapping[str, Manifest]) -> list[tuple[str, str]]:
    """Stage and name of each checkpoint to measure, however a manifest lists them."""
    return [
        (stage, name)
        for stage, name in (*IN_ORDER, *rounds.aligned(upstream))
        if stage in upstream and name in upstream[stage].checkpoints
    ]


def _values(config: RunConfig) -> EvaluationConfig:
    assert config.evaluation is not None
    return config.evaluation


def _folder(config: RunConfig) -> TableFolder:
    """Checkpoints and evaluators name shards, so that a new one of either redraws no other."""
    assert config.features is not None
    values = _values(config).model_dump(mode="json", include={"image_size", "sampling", "seed"})
    values |= {
        "autoencoder": autoencoder_identity(config.features),
        "text encoder": text_encoder_identity(config.features),
        "text length": config.features.text_length,
    }
    return TableFolder(config.root, SCORES, values)


def _inputs(config: RunConfig, upstream: Mapping[str, Manifest]) -> str:
    weights = [[name, upstream[stage].content] for stage, name in checkpoints(upstream)]
    return identifier(
        weights, [each.model_dump(mode="json") for each in _values(config).evaluators]
    )


@cache
def _evaluator(config: EvaluatorConfig) -> Evaluator:
    """One a process."""
    return evaluators.build(config)


@cache
def _prompts(config: EvaluatorConfig) -> tuple[Prompt, ...]:
    """Once a process: finding what is held out takes seconds."""
    return tuple(_evaluator(config).prompts())


# --- rows ---------------------------------------------------------------------------------------


def orders_of(config: RunConfig, evaluator: EvaluatorConfig) -> list[Order]:
    return [
        Order(prompt, number, seed_of(prompt.index, number, _values(config).seed))
        for prompt in _prompts(evaluator)
        for number in range(_evaluator(evaluator).images_per_prompt)
    ]


def _facts_of(orders: Sequence[Order]) -> list[list[object]]:
    return [[o.prompt.index, o.prompt.task, o.prompt.text, o.image_index, o.seed] for o in orders]


def score_images(
    evaluator: Evaluator, checkpoint: str, orders: Sequence[Order], images: Sequence[Image.Image]
) -> pa.RecordBatch:
    prompts = [order.prompt for order in orders]
    scored = evaluator.score(images, prompts)
    columns = {
        "evaluator": [evaluator.name] * len(orders),
        "checkpoint": [checkpoint] * len(orders),
        "task": [prompt.task for prompt in prompts],
        "prompt_index": [prompt.index for prompt in prompts],
        "prompt": [prompt.text for prompt in prompts],
        "image_index": [order.image_index for order in orders],
        "seed": [order.seed for order in orders],
        "image": [png(image) for image in images],
        "correct": [score.correct for score in scored],
        "reason": [score.reason for score in scored],
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCORES.schema)


def scores(config: RunConfig, manifest: Manifest) -> dict[str, dict[str, float]]:
    """Share of correct pictures, by checkpoint and task, from the table."""
    names = ["evaluator", "checkpoint", "task", "correct"]
    return summarise(read(config.root, manifest.snapshots[STAGE], names, check=False))


def summarise(table: pa.Table) -> dict[str, dict[str, float]]:
    """Checkpoint to task to share of correct pictures; "mean" is over tasks, not pictures.

    With several evaluators a task is called `evaluator/task`.
    """
    several = len(table["evaluator"].unique()) > 1
    correct: dict[str, dict[str, list[bool]]] = {}
    for row in table.select(["evaluator", "checkpoint", "task", "correct"]).to_pylist():
        task = f"{row['evaluator']}/{row['task']}" if several else row["task"]
        correct.setdefault(row["checkpoint"], {}).setdefault(task, []).append(row["correct"])
    summary = {}
    for checkpoint, tasks in correct.items():
        shares = {task: sum(values) / len(values) for task, values in tasks.items()}
        summary[checkpoint] = {**shares, MEAN: sum(shares.values()) / len(shares)}
    return summary


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshot = manifest.snapshots[STAGE]
    names = ["evaluator", "checkpoint", "task", "prompt_index", "image_index", "correct", "reason"]
    table = read(config.root, snapshot, names, check=False)
    rows = zip(table["correct"].to_pylist(), table["reason"].to_pylist(), strict=True)
    wrong = [reason or WRONG for correct, reason in rows if not correct]
    summary = summarise(table)
    return Description(
        stage=STAGE,
        title="Evaluation",
        rows_in=len(table),
        kept=len(table) - len(wrong),
        rejected=len(wrong),
        reasons=count(wrong),
        facts=_facts(config, upstream, snapshot),
        tables=(_grid(summary), _by_reason(table)),
        pictures=(_sheet(config, snapshot, table),),
        plots=_bars(summary),
    )


def _facts(
    config: RunConfig, upstream: Mapping[str, Manifest], snapshot: Snapshot
) -> dict[str, str]:
    values = _values(config)
    facts = {"table": snapshot.label, "content": snapshot.content}
    for stage, name in checkpoints(upstream):
        facts[name] = f"{upstream[stage].checkpoints[name]} ({upstream[stage].content[:16]})"
    sampling = values.sampling
    facts["evaluators"] = ", ".join(str(each.kind) for each in values.evaluators)
    facts["sampling"] = (
        f"{values.image_size} px, {sampling.num_iterations} steps of {sampling.head_steps}, "
        f"guidance {sampling.guidance:g} {sampling.guidance_schedule}, "
        f"temperature {sampling.temperature:g}, seed {values.seed}"
    )
    return facts


def _grid(summary: Mapping[str, Mapping[str, float]]) -> Grid:
    names = list(summary)
    cells = []
    for task in summary[names[0]] if names else ():
        shares = [summary[name].get(task, 0.0) for name in names]
        change = (f"{shares[-1] - shares[-2]:+.3f}",) if len(names) > 1 else ()
        cells.append((task, *(f"{share:.3f}" for share in shares), *change))
    header = ("task", *names, *(("difference",) if len(names) > 1 else ()))
    return Grid("Share of correct pictures", header, tuple(cells))


def _by_reason(table: pa.Table) -> Grid:
    """What goes wrong, by checkpoint."""
    names = table["checkpoint"].unique().to_pylist()
    why: dict[str, dict[str, int]] = {}
    for name, reason in zip(
        table["checkpoint"].to_pylist(), table["reason"].to_pylist(), strict=True
    ):
        if reason:
            counts = why.setdefault(reason, {})
            counts[name] = counts.get(name, 0) + 1
    cells = tuple(
        (reason, *(f"{why[reason].get(name, 0):,}" for name in names)) for reason in sorted(why)
    )
    return Grid("What went wrong", ("reason", *names), cells)


def _bars(summary: Mapping[str, Mapping[str, float]]) -> tuple[Plot, ...]:
    if len(summary) < 2:
        return ()
    before, after = list(summary)[-2:]
    plot = score_bars(summary[before], summary[after], labels=(before, after))
    return (Plot(f"Correct pictures, {before} and {after}", plot),)


def _sheet(config: RunConfig, snapshot: Snapshot, table: pa.Table) -> Picture:
    """The same prompts and seeds of the last two checkpoints; of one, more of its own."""
    names = table["checkpoint"].unique().to_pylist()[-2:]
    firsts = table["image_index"].to_numpy() == 0
    checkpoint = table["checkpoint"].to_numpy(zero_copy_only=False)
    sides = []
    for name in names:
        rows = np.flatnonzero(firsts & (checkpoint == name))
        chosen = [int(rows[index]) for index in spread(len(rows), SHOWN)]
        columns = ["image", "prompt", "correct", "reason"]
        shown = take(config.root, snapshot, chosen, columns).to_pylist()
        sides.append(
            [Cell(row["image"], row["prompt"], row["reason"], row["correct"]) for row in shown]
        )
    if len(names) < 2:
        return Picture(f"Drawn by {names[0]}", contact_sheet(sides[0], 6))
    sheet = side_by_side(names[0].capitalize(), sides[0], names[1].capitalize(), sides[1])
    return Picture(f"Same prompts and seeds, {names[0]} and {names[1]}", sheet)
