"""Captions: what the teacher is asked to draw, harvested, normalised and deduplicated.

In:    the caption sources of the run.
Out:   `captions`, one row for every row of the sources; what is not kept says why.
Rerun: rows that did not change stay in their shards: a source that grows by a hundred rows adds
       one shard of a hundred rows, whatever the size of the last shard was.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import pyarrow as pa

from pipeline import caption_sources
from pipeline.caption_sources import CaptionSource, SourceRow
from pipeline.config import CaptionsConfig, RunConfig
from pipeline.description import Description, Grid
from pipeline.tables import (
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    identifier,
    read,
)

STAGE = "captions"
DUPLICATE, TOO_SHORT, TOO_LONG = "duplicate", "too short", "too long"
SHOWN = 12  # captions, and rejected rows, that the description quotes
# Invisible marks that scripts and emoji need; all others of their class are dropped.
JOINERS = "\u200c\u200d"

CAPTIONS = Table(
    name="captions",
    version=1,
    schema=pa.schema(
        [
            pa.field("caption_id", pa.string(), False),  # of the text; "" where there is none
            pa.field("caption", pa.string(), False),  # normalised
            pa.field("source", pa.string(), False),
            pa.field("licence", pa.string(), False),
            pa.field("kind", pa.string(), False),  # short | long
            pa.field("place", pa.string(), False),  # file:line
            pa.field("keep", pa.bool_(), False),
            pa.field("reason", pa.string(), False),  # "" when kept
        ]
    ),
)


class Row(NamedTuple):
    """A row of the table, in the order of its columns."""

    caption_id: str
    caption: str
    source: str
    licence: str
    kind: str
    place: str
    keep: bool
    reason: str


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    snapshot = _folder(config).find(_inputs(config.captions))
    return Manifest.of(STAGE, {STAGE: snapshot}) if snapshot else None


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folder = _folder(config)
    known = {shard.name: shard.rows for old in folder.history() for shard in old.shards}
    return [
        Work(shard_name(folder, rows[first : first + count]), (source,), first, count)
        for source, rows in _harvest(config.captions, _inputs(config.captions)).items()
        for first, count in cuts(folder, rows, known, config.captions.rows_per_shard)
    ]


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    folder = _folder(config)
    source = _harvest(config.captions, _inputs(config.captions))[work.sources[0]]
    rows = source[work.first : work.first + work.rows]
    if shard_name(folder, rows) != work.name:
        raise ValueError(f"source {work.sources[0]!r} changed while it was harvested; run again")

    def batches() -> Iterator[pa.RecordBatch]:
        columns = [list(column) for column in zip(*rows, strict=True)]
        yield pa.record_batch(columns, schema=CAPTIONS.schema)
        progress(len(rows))

    return [folder.write_shard(work.name, batches())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    snapshot = _folder(config).commit(shards, _inputs(config.captions))
    return Manifest.of(STAGE, {STAGE: snapshot})


def _folder(config: RunConfig) -> TableFolder:
    """Sources are inputs, so that a source that grows stays in its table."""
    values = config.captions.model_dump(
        mode="json", include={"min_characters", "max_characters", "long_words"}
    )
    return TableFolder(config.root, CAPTIONS, values)


def _inputs(config: CaptionsConfig) -> str:
    sources = [caption_sources.build(source) for source in config.sources]
    return identifier(
        [[source.name, source.licence, source.fingerprint()] for source in sources],
        config.rows_per_shard,
    )


# --- rows ---------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _harvest(config: CaptionsConfig, inputs: str) -> dict[str, list[Row]]:
    """All rows by source, once a process: what is a duplicate is known only over all of them."""
    rows = harvest([caption_sources.build(source) for source in config.sources], config)
    if not any(row.keep for source in rows.values() for row in source):
        count = sum(map(len, rows.values()))
        raise ValueError(f"captions.sources: no caption to keep among {count} rows of {list(rows)}")
    return rows


def harvest(sources: Sequence[CaptionSource], config: CaptionsConfig) -> dict[str, list[Row]]:
    """Every row of every source, judged; of equal captions the first is kept."""
    seen: set[str] = set()
    return {
        source.name: [_row(row, source, config, seen) for row in source.rows()]
        for source in sources
    }


def _row(row: SourceRow, source: CaptionSource, config: CaptionsConfig, seen: set[str]) -> Row:
    caption = normalise(row.text) if row.text is not None else ""
    caption_id = caption_id_of(caption) if caption else ""
    reason = row.reason or rejection(caption, config) or (DUPLICATE if caption_id in seen else "")
    if not reason:
        seen.add(caption_id)
    kind = "long" if len(caption.split()) >= config.long_words else "short"
    name, licence = source.name, source.licence
    return Row(caption_id, caption, name, licence, kind, row.place, not reason, reason)


def normalise(text: str) -> str:
    """One spelling for what reads the same: composed letters, no invisible marks, plain spaces."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # half characters become "?"
    spaced = "".join(_plain(letter) for letter in unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", " ".join(spaced.split()))


def _plain(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cc":
        return " "
    return "" if category == "Cf" and letter not in JOINERS else letter


def caption_id_of(caption: str) -> str:
    return hashlib.sha256(caption.encode()).hexdigest()[:16]


def rejection(caption: str, config: CaptionsConfig) -> str:
    if len(caption) < config.min_characters:
        return TOO_SHORT
    return TOO_LONG if len(caption) > config.max_characters else ""


# --- shards -------------------------------------------------------------------------------------


def shard_name(folder: TableFolder, rows: Sequence[Row]) -> str:
    return identifier(folder.fingerprint, rows)


def cuts(
    folder: TableFolder, rows: Sequence[Row], known: Mapping[str, int], most: int
) -> list[tuple[int, int]]:
    """Where a source is cut: as in earlier versions where its rows are the same, else evenly."""
    lengths = sorted({count for count in known.values() if 0 < count <= most}, reverse=True)
    pieces: list[tuple[int, int]] = []
    first = 0
    while first < len(rows):
        left = len(rows) - first
        there = (
            count
            for count in lengths
            if count <= left and shard_name(folder, rows[first : first + count]) in known
        )
        pieces.append((first, next(there, min(most, left))))
        first += pieces[-1][1]
    return pieces


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshot = manifest.snapshots[STAGE]
    table = read(config.root, snapshot)
    rows = [Row(**row) for row in table.to_pylist()]
    kept = [row for row in rows if row.keep]
    rejected = [row for row in rows if not row.keep]
    return Description(
        stage=STAGE,
        title="Captions",
        rows_in=len(rows),
        kept=len(kept),
        rejected=len(rejected),
        reasons=count(row.reason for row in rejected),
        facts=_facts(config, snapshot, kept),
        tables=(_by_source(rows), _by_kind(kept), _quoted(kept), _refused(rejected)),
    )


def count(names: Iterable[str]) -> dict[str, int]:
    """How often each occurs, by name."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def spread(number: int, most: int) -> list[int]:
    """At most `most` of `number` rows, evenly over all of them."""
    shown = min(number, most)
    return [index * number // shown for index in range(shown)]


def _facts(config: RunConfig, snapshot: Snapshot, kept: Sequence[Row]) -> dict[str, str]:
    licences = count(row.licence for row in kept)
    return {
        "table": snapshot.label,
        "content": snapshot.content,
        "licences": ", ".join(f"{name} ({rows:,})" for name, rows in licences.items()),
        "characters": f"{config.captions.min_characters} to {config.captions.max_characters}",
        "long": f"{config.captions.long_words} words or more",
    }


def _by_source(rows: Sequence[Row]) -> Grid:
    header = ("source", "licence", "rows", "kept", "duplicate", "other", "mean words")
    cells = []
    for source in dict.fromkeys(row.source for row in rows):
        own = [row for row in rows if row.source == source]
        kept = [row for row in own if row.keep]
        doubles = sum(row.reason == DUPLICATE for row in own)
        words = sum(len(row.caption.split()) for row in kept) / max(1, len(kept))
        numbers = (len(own), len(kept), doubles, len(own) - len(kept) - doubles)
        cells.append((source, own[0].licence, *(f"{n:,}" for n in numbers), f"{words:.1f}"))
    return Grid("Sources", header, tuple(cells))


def _by_kind(kept: Sequence[Row]) -> Grid:
    cells = []
    for kind in ("short", "long"):
        words = sorted(len(row.caption.split()) for row in kept if row.kind == kind)
        if words:
            figures = (len(words), words[0], int(median(words)), words[-1])
            cells.append((kind, *(f"{n:,}" for n in figures)))
    header = ("length class", "captions", "fewest words", "median", "most")
    return Grid("Length classes", header, tuple(cells))


def _quoted(kept: Sequence[Row]) -> Grid:
    shown = [kept[index] for index in spread(len(kept), SHOWN)]
    cells = tuple((row.source, row.kind, _shortened(row.caption)) for row in shown)
    return Grid("Some captions", ("source", "kind", "caption"), cells)


def _refused(rejected: Sequence[Row]) -> Grid:
    """A few of each reason."""
    reasons = sorted({row.reason for row in rejected})
    most = max(2, SHOWN // max(1, len(reasons)))
    shown = []
    for reason in reasons:
        own = [row for row in rejected if row.reason == reason]
        shown += [own[index] for index in spread(len(own), most)]
    cells = tuple((row.place, row.reason, _shortened(row.caption)) for row in shown)
    return Grid("Some rejected rows", ("place", "reason", "caption"), cells)


def _shortened(caption: str, most: int = 160) -> str:
    return caption if len(caption) <= most else caption[: most - 3] + "..."
