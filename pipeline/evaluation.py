"""Evaluation: every checkpoint draws the evaluators' prompts, and each picture is right or wrong.

In:    the checkpoints of `student` and, where the run has one, of `dpo`.
Out:   `scores`, one row a picture. Prompt and seed are the same for every checkpoint, so that
       pictures before and after alignment differ by the weights alone. With `fidelity` also
       `measures`: FID, CMMD and CLIP score of each checkpoint's pictures.
Rerun: a new checkpoint draws its own pictures; those of the others stay.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import pyarrow as pa
from PIL import Image

from pipeline import evaluation_description, evaluators, rounds, standings, student
from pipeline.config import EvaluationConfig, EvaluatorConfig, RunConfig
from pipeline.description import Description
from pipeline.drawing import checkpoint_folder, draw
from pipeline.encoders import autoencoder_identity, text_encoder_identity
from pipeline.evaluators import Evaluator, Prompt
from pipeline.fidelity import table as measures_table
from pipeline.images import png, seed_of
from pipeline.significance import MEAN as MEAN  # part of what `scores` returns
from pipeline.standings import Evidence, summarise
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
)

STAGE = "evaluate"
PROMPTS_PER_SHARD = 100
IN_ORDER = (  # of training: a difference is that of the last two
    (student.STAGE, student.UNTRAINED),
    (student.STAGE, student.CHECKPOINT),
)  # and every round of alignment

SCORES = Table(
    name="scores",
    version=3,
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
            pa.field("reason", pa.string(), False),  # a category; "" when correct
            pa.field("extra_objects", pa.int32(), False),  # beyond what the prompt asks for
            pa.field("words", pa.string(), False),  # the reason as a person reads it
            pa.field("judge", pa.string(), False),  # what decided: detector and weights
            pa.field("details", pa.string(), False),  # JSON of what was seen; "" where none
        ]
    ),
)


class Order(NamedTuple):
    """One picture to draw."""

    prompt: Prompt
    image_index: int
    seed: int


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    inputs = _inputs(config, upstream)
    found = {name: folder.find(inputs) for name, folder in _folders(config).items()}
    whole = {name: snapshot for name, snapshot in found.items() if snapshot is not None}
    return Manifest.of(STAGE, whole) if len(whole) == len(found) else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (_folder(config).place,)


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    """Pictures first; what is measured of a checkpoint's pictures together comes after them."""
    works = _score_works(config, upstream)
    if _values(config).fidelity is None:
        return works
    measures = _folders(config)[measures_table.NAME]
    for sources in dict.fromkeys(work.sources for work in works):
        drawn = [work.name for work in works if work.sources == sources]
        name = f"{measures_table.NAME}:{identifier(measures.fingerprint, drawn)}"
        works.append(Work(name, sources, 0, 0))
    return works


def _score_works(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folder = _folder(config)
    works = []
    for stage, checkpoint in checkpoints(upstream):
        for number, evaluator in enumerate(_values(config).evaluators):
            orders = orders_of(config, evaluator)
            size = PROMPTS_PER_SHARD * _evaluator(evaluator).images_per_prompt
            for first in range(0, len(orders), size):
                part = orders[first : first + size]
                weights = upstream[stage].content
                judged_by = evaluators.identity(evaluator)
                name = identifier(
                    folder.fingerprint, checkpoint, weights, judged_by, _facts_of(part)
                )
                works.append(Work(name, (stage, checkpoint, str(number)), first, len(part)))
    return works


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """The shards of a piece of work if their files are there and right."""
    table, _, name = work.name.rpartition(":")
    shard = _folders(config)[table or STAGE].whole_shard(name)
    return [shard] if shard else None


def side_by_side(config: RunConfig) -> bool:
    """What is measured of pictures together comes after them, and one student draws."""
    return False


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    if work.name.startswith(f"{measures_table.NAME}:"):
        return [_measure(config, upstream, work, progress)]
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


def _measure(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> Shard:
    """The shard of `measures` for one checkpoint and evaluator, whose pictures are drawn."""
    values, scores = _values(config), _folder(config)
    fidelity = values.fidelity
    assert fidelity is not None
    _, checkpoint, number = work.sources
    names = [w.name for w in _score_works(config, upstream) if w.sources == work.sources]
    shards = [shard for name in names if (shard := scores.whole_shard(name))]
    assert len(shards) == len(names), "pictures are drawn before they are measured"
    evaluator = _evaluator(values.evaluators[int(number)]).name
    keys = {"evaluator": evaluator, "checkpoint": checkpoint}

    def rows() -> Iterator[pa.RecordBatch]:
        yield measures_table.rows(config.root, fidelity, scores, shards, keys, config.device)
        progress(0)

    return _folders(config)[measures_table.NAME].write_shard(work.name.split(":")[1], rows())


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    inputs = _inputs(config, upstream)
    return Manifest.of(
        STAGE,
        {
            name: folder.commit([s for s in shards if s.table == folder.name], inputs)
            for name, folder in _folders(config).items()
        },
    )


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


def _folders(config: RunConfig) -> dict[str, TableFolder]:
    """The scores; where the run asks for them, measures of the same pictures."""
    fidelity = _values(config).fidelity
    measures = (
        {measures_table.NAME: measures_table.folder(config.root, fidelity)} if fidelity else {}
    )
    return {STAGE: _folder(config), **measures}


def _inputs(config: RunConfig, upstream: Mapping[str, Manifest]) -> str:
    weights = [[name, upstream[stage].content] for stage, name in checkpoints(upstream)]
    judged_by = [
        [evaluators.identity(each), each.images_per_prompt] for each in _values(config).evaluators
    ]
    return identifier(weights, judged_by)


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
        "extra_objects": [score.extra_objects for score in scored],
        "words": [score.words for score in scored],
        "judge": [evaluator.judge] * len(orders),
        "details": [score.details for score in scored],
    }
    return pa.RecordBatch.from_pydict(columns, schema=SCORES.schema)


def scores(config: RunConfig, manifest: Manifest) -> dict[str, dict[str, float]]:
    """Share of correct pictures, by checkpoint and task, from the table."""
    return summarise(_answers(config, manifest))


def evidence(config: RunConfig, manifest: Manifest) -> Evidence:
    """Intervals of the scores, and the last checkpoint against each one before it; both by the
    strict score, too."""
    return standings.evidence(_answers(config, manifest))


def _answers(config: RunConfig, manifest: Manifest) -> pa.Table:
    columns = (*standings.COLUMNS, standings.EXTRA)
    return read(config.root, manifest.snapshots[STAGE], columns, check=False)


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshot = manifest.snapshots[STAGE]
    history = [each for each in _folder(config).history() if each.version < snapshot.version]
    return evaluation_description.describe(
        config.root,
        snapshot,
        history,
        _facts(config, upstream, snapshot),
        manifest.snapshots.get(measures_table.NAME),
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
