"""Readings: what stands in the sources, in normal form, each part read once.

In:    the parts of the sources.
Out:   <root>/readings/<id>.arrow, one file a part, a row for every row of the part.
Rerun: a part that was read whole is mapped, not read; a killed or vanished one leaves nothing.
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa

from pipeline import languages
from pipeline.caption_sources import CaptionSource, Part, SourceRow
from pipeline.config import LanguageConfig
from pipeline.tables import identifier
from pipeline.wording import caption_id_of, normalise

VERSION = 1
ROWS_PER_BATCH = 8192
STALE_SECONDS = 24 * 3600

logger = logging.getLogger(__name__)

READING = pa.schema(
    [
        pa.field("caption_id", pa.string(), False),  # of the text; "" where there is none
        pa.field("caption", pa.string(), False),  # normalised
        pa.field("place", pa.string(), False),
        pa.field("reason", pa.string(), False),  # why it cannot be read, "" when it can
        pa.field("words", pa.int32(), False),
        pa.field("foreign", pa.bool_(), False),  # hardly in an allowed language
    ]
)


class Reading(NamedTuple):
    """All parts of one source."""

    source: str
    licence: str
    rows: pa.Table


def read_source(root: Path, source: CaptionSource, language: LanguageConfig | None) -> Reading:
    """Map every part of a source, reading those that are not there yet."""
    tables = [_mapped(_read(root, source, part, language)) for part in source.parts()]
    rows = pa.concat_tables(tables) if tables else READING.empty_table()
    return Reading(source.name, source.licence, rows)


def _read(root: Path, source: CaptionSource, part: Part, language: LanguageConfig | None) -> Path:
    values = language.model_dump(mode="json") if language else None
    name = identifier(VERSION, source.name, part.name, part.fingerprint, values)
    path = root / "readings" / f"{name}.arrow"
    if path.exists():
        return path
    logger.info("reading %s of captions source %s", part.name, source.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    waiting = path.with_name(f".{name}.{uuid4().hex}.part")
    try:
        with pa.OSFile(str(waiting), "wb") as file, pa.ipc.new_file(file, READING) as writer:
            for batch in _batches(part, language):
                writer.write_batch(batch)
        _flush(waiting)
        waiting.replace(path)
    except OSError as error:
        raise ValueError(
            f"captions source {source.name!r}: {part.name} could not be read to its end ({error}). "
            "What was read before it is kept: bring it back and run again"
        ) from error
    finally:
        waiting.unlink(missing_ok=True)
    return path


def _batches(part: Part, language: LanguageConfig | None) -> Iterator[pa.RecordBatch]:
    rows: list[SourceRow] = []
    for row in part.rows():
        rows.append(row)
        if len(rows) == ROWS_PER_BATCH:
            yield _batch(rows, language)
            rows = []
    if rows:
        yield _batch(rows, language)


def _batch(rows: list[SourceRow], language: LanguageConfig | None) -> pa.RecordBatch:
    captions = [normalise(row.text) if row.text is not None else "" for row in rows]
    columns = [
        [caption_id_of(caption) if caption else "" for caption in captions],
        captions,
        [normalise(row.place) for row in rows],
        [row.reason for row in rows],
        [caption.count(" ") + 1 if caption else 0 for caption in captions],
        languages.foreign(captions, language) if language else [False] * len(rows),
    ]
    return pa.record_batch(columns, schema=READING)


def _mapped(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and run again") from error


def _sweep(folder: Path) -> None:
    """Remove what killed readers left, once no reader can still be at it."""
    for path in folder.glob(".*.part"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
