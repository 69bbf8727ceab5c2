"""Preferences: two pictures of one caption, the better one first.

In:    `features`, `images` and `verdicts` for the teacher's side; the checkpoint that is to learn.
Out:   `samples`, what it drew for chosen captions, judged; `preferences`, the pairs. A comparison
       that gives no pair (a tie, a good sample) is a row with its reason.
Rerun: draws only samples that are new for this checkpoint; another margin or threshold pairs the
       same samples again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline import judges, pair_builders, preference_description, samples
from pipeline.config import RunConfig
from pipeline.description import Description
from pipeline.feature_tables import name_of
from pipeline.pair_builders import Contender, Pairing
from pipeline.rounds import POLICY, policy_of
from pipeline.samples import draw_samples
from pipeline.subjects import Subject, scorer_of, subjects, teachers, values_of
from pipeline.tables import (
    NO_COMPRESSION,
    Manifest,
    Shard,
    Table,
    TableFolder,
    Work,
    identifier,
)

STAGE = "preferences"
# Raised when a builder's rules make other rows; those not named here are at their first.
RULES = {"teacher_over_student": 2}

PREFERENCES = Table(
    name="preferences",
    version=1,
    schema=pa.schema(
        [
            pa.field("pair_id", pa.string(), False),
            pa.field("caption_id", pa.string(), False),
            pa.field("caption", pa.string(), False),
            pa.field("kind", pa.string(), False),  # which comparison
            # float16 bits of the normalised latents (c, h, w); null where there is no pair
            pa.field("winner", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("loser", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("winner_image", pa.large_binary(), True, NO_COMPRESSION),  # PNG
            pa.field("loser_image", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("winner_from", pa.string(), False),
            pa.field("loser_from", pa.string(), False),
            pa.field("winner_score", pa.float32(), False),
            pa.field("loser_score", pa.float32(), False),
            pa.field("keep", pa.bool_(), False),
            pa.field("reason", pa.string(), False),  # "" when kept
        ]
    ),
)


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    inputs = _inputs(config, upstream)
    found = {name: folder.find(inputs) for name, folder in _folders(config).items()}
    whole = {name: snapshot for name, snapshot in found.items() if snapshot is not None}
    return Manifest.of(STAGE, whole) if len(whole) == len(found) else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return tuple(folder.place for folder in _folders(config).values())


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    values, folder = values_of(config), _folders(config)["samples"]
    chosen = subjects(config, upstream)
    works = []
    for first in range(0, len(chosen), values.rows_per_shard):
        part = chosen[first : first + values.rows_per_shard]
        name = samples.name_of(folder, upstream, part, values.samples_per_caption)
        works.append(Work(name, (), first, len(part) * values.samples_per_caption))
    return works


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """Which pairs a shard of samples makes is known only when these are read."""
    return None


def side_by_side(config: RunConfig) -> bool:
    """One student draws."""
    return False


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    values, folders = values_of(config), _folders(config)
    chosen = subjects(config, upstream)
    part = chosen[work.first : work.first + work.rows // values.samples_per_caption]
    rows = draw_samples(config, upstream, part, progress)
    drawn = folders["samples"].write_shard(work.name, rows)
    features = upstream["features"].snapshots[name_of(values.image_size)]
    pairs = identifier(
        folders["preferences"].fingerprint,
        drawn.sha256,
        [picture.image_id for subject in part for picture in subject.pictures],
        features.content,
    )

    def compared() -> Iterator[pa.RecordBatch]:
        table = folders["samples"].read_shard(drawn)
        yield compare(config, upstream, part, table)
        progress(work.rows)

    return [drawn, folders["preferences"].write_shard(pairs, compared())]


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


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    return preference_description.describe(config, upstream, manifest)


def _folders(config: RunConfig) -> dict[str, TableFolder]:
    values, scorer = values_of(config), scorer_of(config)
    compared = values.model_dump(mode="json", include={"pairs", "min_margin"})
    compared |= scorer.model_dump(mode="json", include={"min_alignment", "min_quality"})
    rules = {kind: RULES[kind] for kind in values.pairs if kind in RULES}
    if rules:
        compared["rules"] = rules
    if values.alignment_weight != 0.5:
        compared["alignment_weight"] = values.alignment_weight
    if values.scorer is not None:
        compared["scorer"] = judges.identity(scorer.judge)
    return {
        "samples": samples.folder(config),
        "preferences": TableFolder(config.root, PREFERENCES, compared),
    }


def _inputs(config: RunConfig, upstream: Mapping[str, Manifest]) -> str:
    above = [upstream[stage].content for stage in ("images", "verdicts", "features")]
    above.append(policy_of(upstream)[0].content)
    size = {"num_captions", "samples_per_caption", "rows_per_shard"}
    if values_of(config).task_shares:
        size.add("task_shares")
    drawn = samples.folder(config).fingerprint
    return identifier(above, drawn, values_of(config).model_dump(mode="json", include=size))


# --- rows ---------------------------------------------------------------------------------------


def compare(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    drawn: pa.Table,
) -> pa.RecordBatch:
    """All comparisons of these captions, pairs and rejected ones."""
    builders = pair_builders.build(values_of(config))
    drawer = policy_of(upstream)[1] if POLICY in upstream else "student"
    wanted = any(builder.reads_teacher for builder in builders)
    theirs = teachers(config, upstream, part) if wanted else {}
    own = samples.contenders(config, drawer, drawn)
    rows = [
        _row(subject, builder.name, pairing)
        for subject in part
        for builder in builders
        for pairing in builder.pair(theirs.get(subject.caption_id, []), own[subject.caption_id])
    ]
    return pa.RecordBatch.from_pylist(rows, schema=PREFERENCES.schema)


def _row(subject: Subject, kind: str, pairing: Pairing) -> dict[str, object]:
    """Only a pair to learn from carries its latents."""
    sides: dict[str, Contender] = {"winner": pairing.winner, "loser": pairing.loser}
    origins = [side.origin for side in sides.values()]
    row: dict[str, object] = {
        "pair_id": identifier(subject.pictures[0].image_id, kind, *origins),
        "caption_id": subject.caption_id,
        "caption": subject.caption,
        "kind": kind,
        "keep": not pairing.reason,
        "reason": pairing.reason,
    }
    for name, side in sides.items():
        row[name] = None if pairing.reason else side.latents
        row[f"{name}_image"], row[f"{name}_from"] = side.image, side.origin
        row[f"{name}_score"] = side.score
    return row
