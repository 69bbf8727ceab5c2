"""Verdicts: how well each picture fits its caption, how good it is, and why.

In:    `images`.
Out:   `verdicts`, one row for every picture, in the same order; where the run has a CLIP beside its
       judge, a second table of that form with the CLIP's scores. Thresholds are applied by whoever
       reads them (`accepted`), so that another threshold judges nothing again.
Rerun: judges only the shards of pictures that are new.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline import judges
from pipeline.config import JudgeConfig, RunConfig, VerdictsConfig
from pipeline.decoding import BROKEN, decode
from pipeline.description import Description
from pipeline.judges import NO_ANSWER, REFUSED, UNPARSABLE, Judge, Verdict
from pipeline.margins import passing, scores_of, thresholds_of
from pipeline.quarantine import REASON as QUARANTINED
from pipeline.roots import near, root_of
from pipeline.tables import (
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    batches,
    identifier,
    read,
    take,
)

STAGE, CLIP = "verdicts", "clip"
NOT_DRAWN = "not drawn"
# Never accepted, whatever the thresholds: nobody saw the picture, or nobody knows what was said.
UNJUDGED = (NOT_DRAWN, BROKEN, UNPARSABLE, NO_ANSWER, REFUSED, QUARANTINED)
LOW_ALIGNMENT, LOW_QUALITY = "low alignment", "low quality"  # where the judge names no reason
LOW_CLIP = {"clip": "low CLIP score", "aesthetic": "low aesthetic score"}
MAX_PIECES = 16  # in memory at once

VERDICTS = Table(
    name="verdicts",
    version=2,
    schema=pa.schema(
        [
            pa.field("image_id", pa.string(), False),
            pa.field("caption_id", pa.string(), False),
            pa.field("alignment", pa.float32(), False),  # 0 to 1
            pa.field("quality", pa.float32(), False),  # 0 to 1
            pa.field("words", pa.string(), False),  # the judge's, for a person
            pa.field("reason", pa.string(), False),  # a category; "" when nothing is wrong
            pa.field("judge", pa.string(), False),
            pa.field("judge_revision", pa.string(), False),
            pa.field("answer", pa.string(), False),  # the model's own; "" where none was asked
        ]
    ),
)


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    found = {name: folder.find(_inputs(upstream)) for name, folder in _folders(config).items()}
    there = {name: snapshot for name, snapshot in found.items() if snapshot}
    return _manifest(config, there) if len(there) == len(found) else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return tuple(folder.place for folder in _folders(config).values())


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    return [
        Work(shard_name(folder, shard), (shard.name, name), 0, shard.rows)
        for name, folder in _folders(config).items()
        for shard in upstream["images"].snapshots["images"].shards
    ]


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """The shards of a piece of work if their files are there and right."""
    shard = _folders(config)[work.sources[1]].whole_shard(work.name)
    return [shard] if shard else None


def side_by_side(config: RunConfig) -> bool:
    """Whether the judges may be asked in several threads."""
    return all(judges.side_by_side(judge) for judge in _judges(config).values())


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    images = upstream["images"].snapshots["images"]
    columns = ["image_id", "caption_id", "caption", "image", "reason"]
    shard, name = work.sources

    def rows() -> Iterator[pa.RecordBatch]:
        judge, done = build_judge(_judges(config)[name], config.root), 0
        for rows in judged_pieces(judge, batches(config.root, images, columns, [shard])):
            yield rows
            done += len(rows)
            progress(done)

    return [_folders(config)[name].write_shard(work.name, rows())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    snapshots = {
        name: folder.commit([s for s in shards if s.table == folder.name], _inputs(upstream))
        for name, folder in _folders(config).items()
    }
    return _manifest(config, snapshots)


def _manifest(config: RunConfig, snapshots: dict[str, Snapshot]) -> Manifest:
    """Later stages read the verdicts through the thresholds, so these are part of the content."""
    values = _values(config)
    read_through = [values.min_alignment, values.min_quality]
    if values.clip:
        read_through += [values.min_clip, values.min_aesthetic]
    return Manifest.of(STAGE, snapshots, read_through)


def _values(config: RunConfig) -> VerdictsConfig:
    assert config.verdicts is not None
    return config.verdicts


def _judges(config: RunConfig) -> dict[str, JudgeConfig]:
    """Whose scores are kept, by the name of their table among the stage's."""
    values = _values(config)
    return {STAGE: values.judge} | ({CLIP: values.clip} if values.clip else {})


def _folders(config: RunConfig) -> dict[str, TableFolder]:
    return {
        name: TableFolder(config.root, VERDICTS, judges.identity(judge))
        for name, judge in _judges(config).items()
    }


def _inputs(upstream: Mapping[str, Manifest]) -> str:
    return identifier(upstream["images"].content)


def shard_name(folder: TableFolder, images: Shard) -> str:
    return _name_for(folder.fingerprint, images)


def _name_for(maker: str, images: Shard) -> str:
    return identifier(maker, images.name, images.sha256)


@cache
def build_judge(config: JudgeConfig, root: str) -> Judge:
    """One a process; its answers so far lie in the run's root, a cluster's node by node.

    SQLite's log ahead of the file is shared by the processes of one machine.
    """
    node = os.environ.get("LIGHTGEN_NODE", "")
    return judges.build(config, near(root_of(root)) / f"answers{node and '-'}{node}.sqlite")


# --- rows ---------------------------------------------------------------------------------------


def judged_pieces(judge: Judge, pieces: Iterator[pa.Table]) -> Iterator[pa.RecordBatch]:
    """The verdicts of each piece in order; as many pieces are begun as keep the judge busy."""
    if judge.in_flight == 1:
        yield from (judge_images(judge, piece) for piece in pieces)
        return
    begun: deque[Future[pa.RecordBatch]] = deque()
    ahead = 0  # pictures begun and not handed on
    with ThreadPoolExecutor(MAX_PIECES) as threads:
        for piece in pieces:
            begun.append(threads.submit(judge_images, judge, piece))
            ahead += len(piece)
            # One piece more than the judge can hold, so that it has work while rows are written.
            while len(begun) == MAX_PIECES or ahead - len(piece) > judge.in_flight:
                rows = begun.popleft().result()
                ahead -= len(rows)
                yield rows
        yield from (one.result() for one in begun)


def judge_images(judge: Judge, images: pa.Table) -> pa.RecordBatch:
    """A verdict for every row; only pictures that decode are shown to the judge."""
    captions = images["caption"].to_pylist()
    pictures = [decoded(data) for data in images["image"].to_pylist()]
    whole = [row for row, picture in enumerate(pictures) if picture is not None]
    given = judge.judge(
        [picture for picture in pictures if picture is not None], [captions[row] for row in whole]
    )
    said = dict(zip(whole, given, strict=True))
    verdicts = [
        said.get(row) or _unseen(data, reason)
        for row, (data, reason) in enumerate(
            zip(images["image"].to_pylist(), images["reason"].to_pylist(), strict=True)
        )
    ]
    (rows,) = _rows(images, verdicts, judge.name, judge.revision).to_batches() or [
        pa.RecordBatch.from_pylist([], schema=VERDICTS.schema)
    ]
    return rows


def _rows(images: pa.Table, verdicts: Sequence[Verdict], judge: str, revision: str) -> pa.Table:
    columns = {
        "image_id": images["image_id"].to_pylist(),
        "caption_id": images["caption_id"].to_pylist(),
        "alignment": [verdict.alignment for verdict in verdicts],
        "quality": [verdict.quality for verdict in verdicts],
        "words": [verdict.words for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
        "judge": [judge] * len(verdicts),
        "judge_revision": [revision] * len(verdicts),
        "answer": [verdict.answer for verdict in verdicts],
    }
    return pa.Table.from_pydict(columns, schema=VERDICTS.schema)


def _unseen(data: bytes | None, reason: str) -> Verdict:
    if data is None:
        return Verdict(0.0, 0.0, f"the teacher drew nothing: {reason}", NOT_DRAWN)
    return Verdict(0.0, 0.0, "the file is no picture", BROKEN)


def decoded(data: bytes | None) -> Image.Image | None:
    """None where there is no picture or it does not decode: a bad row is data."""
    return None if data is None else decode(data)[0]


# --- thresholds ---------------------------------------------------------------------------------


def accepted(config: VerdictsConfig, verdicts: pa.Table) -> NDArray[np.bool_]:
    """Which rows pass. Thresholds are rounded as the scores are, so that 0.7 passes 0.7."""
    return passing(scores_of(verdicts), thresholds_of(config), seen(verdicts["reason"]))


def seen(reasons: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which pictures somebody judged."""
    unseen: NDArray[np.bool_] = pc.is_in(reasons, value_set=pa.array(UNJUDGED)).to_numpy()
    return ~unseen


def reasons(config: VerdictsConfig, verdicts: pa.Table) -> list[str]:
    """Why each row is rejected; "" where it is accepted."""
    return list(_why(config, verdicts, accepted(config, verdicts)).to_pylist())


def _why(config: VerdictsConfig, verdicts: pa.Table, passed: NDArray[np.bool_]) -> pa.ChunkedArray:
    """Reasons as a column: of millions of rows no list is made."""
    low = verdicts["alignment"].to_numpy() < np.float32(config.min_alignment)
    own = pc.if_else(pa.array(low), LOW_ALIGNMENT, LOW_QUALITY)
    named = pc.if_else(pc.equal(verdicts["reason"], ""), own, verdicts["reason"])
    return pc.if_else(pa.array(passed), "", named)


def judged(config: RunConfig, upstream: Mapping[str, Manifest]) -> pa.Table:
    images = upstream["images"].snapshots["images"]
    said = upstream["verdicts"].snapshots
    return judged_images(config.root, _values(config), images, said[STAGE], said.get(CLIP))


@lru_cache(maxsize=2)
def judged_images(
    root: str,
    values: VerdictsConfig,
    images: Snapshot,
    verdicts: Snapshot,
    clip: Snapshot | None = None,
) -> pa.Table:
    """Every picture with its verdict, as the thresholds read it, in the order of the images.

    Columns: image_id, caption_id, width, alignment, quality, accepted, why; with a CLIP's scores
    also clip and aesthetic. The judge's words, which are long, are read by `words_of`.
    """
    pictures = read(root, images, ["image_id", "caption_id", "width"], check=False)
    said = _aligned(root, images, verdicts, ["image_id", "alignment", "quality", "reason"])
    assert pictures["image_id"].equals(said["image_id"]), "verdicts are of other images"
    columns = {name: said[name] for name in ("alignment", "quality")}
    passed = accepted(values, said)
    why = _why(values, said, passed)
    for name, scores in _clip_scores(root, values, images, clip).items():
        columns[name] = scores
        low = scores.to_numpy() < thresholds_of(values)[name]
        why = pc.if_else(pa.array(passed & low), LOW_CLIP[name], why)
        passed &= ~low
    for name, column in columns.items():
        pictures = pictures.append_column(name, column)
    pictures = pictures.append_column("accepted", pa.array(passed))
    return pictures.append_column("why", why)


def words_of(config: RunConfig, upstream: Mapping[str, Manifest], rows: Sequence[int]) -> list[str]:
    """What the judge said of a few pictures, by their rows among the images."""
    images = upstream["images"].snapshots["images"]
    said = upstream[STAGE].snapshots[STAGE]
    if said.rows == images.rows:
        return list(take(config.root, said, rows, ["words"])["words"].to_pylist())
    words = _aligned(config.root, images, said, ["words"])["words"]
    return list(words.take(pa.array(rows, pa.int64())).to_pylist())


def _aligned(root: str, images: Snapshot, verdicts: Snapshot, columns: Sequence[str]) -> pa.Table:
    """A row for every picture: those of a quarantined shard are judged as never accepted."""
    if verdicts.rows == images.rows:
        return read(root, verdicts, columns)
    maker = verdicts.table.removeprefix(f"{VERDICTS.name}-")
    judged, parts = {shard.name for shard in verdicts.shards}, []
    for shard in images.shards:
        name = _name_for(maker, shard)
        if name in judged:
            parts.append(read(root, verdicts, columns, [name]))
            continue
        ids = read(root, images, ["image_id", "caption_id"], [shard.name], check=False)
        nobody = Verdict(0.0, 0.0, "its shard could not be judged", QUARANTINED)
        parts.append(_rows(ids, [nobody] * len(ids), "", "").select(columns))
    return pa.concat_tables(parts)


def _clip_scores(
    root: str, values: VerdictsConfig, images: Snapshot, clip: Snapshot | None
) -> dict[str, pa.ChunkedArray]:
    """In the order of the images: both tables are made from the same shards."""
    if clip is None or values.clip is None:
        return {}
    said = _aligned(root, images, clip, ["image_id", "alignment", "quality"])
    scores = {"clip": said["alignment"]}
    return scores | ({"aesthetic": said["quality"]} if values.clip.aesthetic else {})


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    from pipeline.verdict_description import describe_verdicts

    return describe_verdicts(config, upstream, manifest)
