"""Captions: what the teacher is asked to draw, harvested, normalised, screened and chosen.

In:    the caption sources of the run.
Out:   `captions`, one row for every row of the sources; what is not kept says why.
Rerun: a part of a source that was read is not read again, rows that did not change stay in their
       shards: a source that grows by a hundred rows adds one shard of a hundred rows.

The rows of a source are read once (`readings`), judged together (`screening`), narrowed to a
diverse choice where the run wants one (`diversity`), and lengthened shard by shard (`rewriter`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import caption_sources, diversity, embeddings, languages, screening
from pipeline.config import (
    CaptionsConfig,
    CaptionSet,
    EncoderEmbedding,
    RewriterConfig,
    RunConfig,
)
from pipeline.description import Description
from pipeline.readings import read_source
from pipeline.roots import near, root_of
from pipeline.screening import Screened
from pipeline.tables import Manifest, Shard, Table, TableFolder, Work, identifier
from pipeline.wording import caption_id_of

if TYPE_CHECKING:
    from pipeline.rewriter import Rewriter

STAGE = "captions"

CAPTIONS = Table(
    name="captions",
    version=2,
    schema=pa.schema(
        [
            # Of the text, of a rewritten one of both texts; "" where there is none.
            pa.field("caption_id", pa.string(), False),
            pa.field("caption", pa.string(), False),  # normalised
            pa.field("original", pa.string(), False),  # what was rewritten, "" when nothing was
            pa.field("source", pa.string(), False),
            pa.field("licence", pa.string(), False),
            pa.field("kind", pa.string(), False),  # short | long
            pa.field("place", pa.string(), False),  # file:line
            pa.field("keep", pa.bool_(), False),
            pa.field("reason", pa.string(), False),  # "" when kept
            pa.field("match", pa.string(), False),  # the caption, prompt or word it was refused for
        ]
    ),
)
# Values that choose or change rows; the sources and files that they name are inputs.
SHAPING = {
    "min_characters": True,
    "max_characters": True,
    "long_words": True,
    "language": True,
    "near_duplicates": True,
    "decontamination": {"similarity"},
    "selection": True,
    "rewriter": {"model", "share", "max_words"},
}


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    snapshot = _folder(config).find(_inputs(config.captions))
    return Manifest.of(STAGE, {STAGE: snapshot}) if snapshot else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (_folder(config).place,)


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folder = _folder(config)
    known = {shard.name: shard.rows for old in folder.history() for shard in old.shards}
    screened = _harvested(config)
    works = []
    for source, reading in screened.readings.items():
        rows = Rows(screened, source, config.captions.long_words)
        for first, number in cuts(folder, rows, known, config.captions.rows_per_shard):
            name = shard_name(folder, rows[first : first + number])
            works.append(Work(name, (reading.source,), first, number))
    return works


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """The shards of a piece of work if their files are there and right."""
    shard = _folder(config).whole_shard(work.name)
    return [shard] if shard else None


def side_by_side(config: RunConfig) -> bool:
    """Rows are cut and written; a rewriter asks for many answers at once by itself."""
    return True


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    folder = _folder(config)
    rows = Rows(_harvested(config), work.sources[0], config.captions.long_words)
    batch = rows[work.first : work.first + work.rows]
    if shard_name(folder, batch) != work.name:
        raise ValueError(f"source {work.sources[0]!r} changed while it was harvested; run again")

    def batches() -> Iterator[pa.RecordBatch]:
        yield rewrite(batch, config.captions) if config.captions.rewriter else batch
        progress(len(batch))

    return [folder.write_shard(work.name, batches())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    snapshot = _folder(config).commit(shards, _inputs(config.captions))
    _harvest.cache_clear()  # every row of every source, which nobody asks for any more
    return Manifest.of(STAGE, {STAGE: snapshot})


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    from pipeline.caption_description import describe_captions

    return describe_captions(config, manifest.snapshots[STAGE])


def missing(config: RunConfig) -> list[str]:
    """What this machine lacks for the stage, one sentence each."""
    captions = config.captions
    lacking = [each for source in captions.active for each in caption_sources.missing(source)]
    lacking += screening.missing(captions)
    if captions.language:
        lacking += languages.missing(captions.language)
    for place, values in (("selection", captions.selection), ("diversity", captions.diversity)):
        if values:
            lacking += embeddings.missing(f"captions.{place}", values.embedding)
    if captions.rewriter:
        from pipeline.rewriter import missing_endpoints

        lacking += missing_endpoints(captions.rewriter)
    return lacking


def cautions(config: CaptionsConfig) -> list[str]:
    """What a person must know of the sources, one sentence each."""
    return [
        f"{source.name} ({source.licence}): {source.caution}"
        for source in config.active
        if isinstance(source, CaptionSet) and source.caution
    ]


def _folder(config: RunConfig) -> TableFolder:
    """Sources are inputs, so that a source that grows stays in its table."""
    values = config.captions.model_dump(mode="json", include=SHAPING)  # type: ignore[arg-type]
    if config.captions.rewriter:
        values["rewriter"]["revision"] = _rewriter(config.captions.rewriter).revision
    chosen_by = config.captions.selection and config.captions.selection.embedding
    if isinstance(chosen_by, EncoderEmbedding):
        from pipeline.encoders import weights_identity

        weights = weights_identity(chosen_by.model, chosen_by.revision)
        values["selection"]["embedding"]["model"] = weights
    return TableFolder(config.root, CAPTIONS, values)


def _inputs(config: CaptionsConfig) -> str:
    sources = [caption_sources.build(source) for source in config.active]
    choice = {"selection": diversity.VERSION} if config.selection else {}
    return identifier(
        [[source.name, source.licence, source.fingerprint()] for source in sources],
        config.rows_per_shard,
        {**screening.inputs(config), **choice},
    )


# --- rows ---------------------------------------------------------------------------------------


def _harvested(config: RunConfig) -> Screened:
    return _harvest(config.root, config.device, config.captions, _inputs(config.captions))


@lru_cache(maxsize=2)
def _harvest(root: str, device: str, config: CaptionsConfig, inputs: str) -> Screened:
    """All rows, once a process: what is a duplicate is known only over all of them."""
    screened = harvest(near(root_of(root)), config, device)
    if not len(screened.left()):
        names = list(screened.readings)
        raise ValueError(
            f"captions.sources: no caption to keep among {len(screened.codes)} rows of {names}"
        )
    return screened


def harvest(root: Path, config: CaptionsConfig, device: str = "cpu") -> Screened:
    """Every row of every source with what was decided of it; of equal captions the first stays."""
    sources = [caption_sources.build(source) for source in config.active]
    readings = [read_source(root, source, config.language) for source in sources]
    terms = screening.blocked_terms(config.blocklist)
    prompts = screening.benchmark_prompts(config.decontamination)
    screened = screening.screen(readings, config, terms, prompts)
    if config.selection:
        _select(screened, config, device)
    return screened


def _select(screened: Screened, config: CaptionsConfig, device: str) -> None:
    """Refuse what a diverse choice leaves out."""
    assert config.selection is not None
    rows, values = screened.left(), config.selection
    if len(rows) <= values.num_captions:
        return
    chosen = diversity.select(
        embeddings.embed(screened.captions(rows), values.embedding, values.seed, device),
        screened.table["words"].to_numpy()[rows] >= config.long_words,
        screened.table["caption_id"].take(pa.array(rows)).to_pylist(),
        number=values.num_captions,
        short_share=values.short_share,
        clusters=values.clusters,
        seed=values.seed,
    )
    left_out = np.ones(len(rows), bool)
    left_out[chosen] = False
    screened.reject(rows[left_out], screening.NOT_SELECTED)


class Rows:
    """The rows of one source as the table has them; a slice is a batch."""

    def __init__(self, screened: Screened, source: str, long_words: int) -> None:
        self.screened, self.long_words = screened, long_words
        self.reading, self.start = screened.readings[source], screened.starts[source]

    def __len__(self) -> int:
        return len(self.reading.rows)

    def __getitem__(self, rows: slice) -> pa.RecordBatch:
        first, stop, _ = rows.indices(len(self))
        read = self.reading.rows.slice(first, stop - first).combine_chunks()
        reasons = self.screened.reason_of(slice(self.start + first, self.start + stop))
        matches = self.screened.match_of(slice(self.start + first, self.start + stop))
        long = pc.greater_equal(read["words"], self.long_words)
        columns = {
            "caption_id": read["caption_id"],
            "caption": read["caption"],
            "original": pa.repeat("", len(read)),
            "source": pa.repeat(self.reading.source, len(read)),
            "licence": pa.repeat(self.reading.licence, len(read)),
            "kind": pc.if_else(long, "long", "short"),
            "place": read["place"],
            "keep": pc.equal(reasons, ""),
            "reason": reasons,
            "match": matches,
        }
        (batch,) = pa.table(columns, schema=CAPTIONS.schema).combine_chunks().to_batches() or [
            pa.RecordBatch.from_pylist([], schema=CAPTIONS.schema)
        ]
        return batch


def rewrite(batch: pa.RecordBatch, config: CaptionsConfig) -> pa.RecordBatch:
    """The short captions that are kept, or a share of them, made long; the others as they are."""
    assert config.rewriter is not None
    rewriter, rows = _rewriter(config.rewriter), batch.to_pylist()
    chosen = [
        row
        for row in rows
        if row["keep"] and row["kind"] == "short" and rewriter.chooses(row["caption_id"])
    ]
    answers = rewriter.rewrite([row["caption"] for row in chosen], config.max_characters)
    unwanted = screening.unwanted([answer or "" for answer in answers], config)
    for number, (row, answer) in enumerate(zip(chosen, answers, strict=True)):
        if answer and number not in unwanted:
            _replace(row, answer, config.long_words)
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema)


def _replace(row: dict[str, Any], rewritten: str, long_words: int) -> None:
    # Of both texts: two captions may be lengthened to the same words and are two rows still.
    row["caption_id"] = caption_id_of(f"{row['caption']}\n{rewritten}")
    row["original"], row["caption"] = row["caption"], rewritten
    row["kind"] = "long" if len(rewritten.split()) >= long_words else "short"


@lru_cache(maxsize=1)
def _rewriter(config: RewriterConfig) -> "Rewriter":
    from pipeline.rewriter import Rewriter  # the HTTP client is only for those who rewrite

    return Rewriter(config)


# --- shards -------------------------------------------------------------------------------------


def shard_name(folder: TableFolder, rows: pa.RecordBatch) -> str:
    return identifier(folder.fingerprint, len(rows), content_of(rows))


def content_of(rows: pa.RecordBatch) -> str:
    """The sha256 of the values, wherever in a larger column they stand."""
    digest = hashlib.sha256()
    for column in rows.columns:
        if pa.types.is_boolean(column.type):
            digest.update(column.to_numpy(zero_copy_only=False).tobytes())
        elif len(column):
            _, offsets, letters = column.buffers()
            ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
            digest.update((ends - ends[0]).tobytes())
            digest.update(memoryview(letters or b"")[ends[0] : ends[-1]])
    return digest.hexdigest()


def cuts(
    folder: TableFolder, rows: Rows, known: Mapping[str, int], most: int
) -> list[tuple[int, int]]:
    """Where a source is cut: as in earlier versions where its rows are the same, else evenly."""
    lengths = sorted({number for number in known.values() if 0 < number <= most}, reverse=True)
    pieces: list[tuple[int, int]] = []
    first = 0
    while first < len(rows):
        left = len(rows) - first
        there = (
            number
            for number in lengths
            if number <= left and shard_name(folder, rows[first : first + number]) in known
        )
        pieces.append((first, next(there, min(most, left))))
        first += pieces[-1][1]
    return pieces


# --- what other stages count with ---------------------------------------------------------------


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
