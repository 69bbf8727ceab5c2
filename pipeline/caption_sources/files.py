"""Captions in files: Parquet, JSON lines, TSV by column, text by line.

In:    paths or glob patterns, from the folder the run is started in.
Out:   a part a file, in the order of names; a row for every line, and one that cannot be read says
       why. A file that is not there or empty, or a column that it has not, is a `ValueError`
       naming it. Files are streamed.
Rerun: a part's fingerprint is over its content, not its time; an unchanged file is summed once a
       process.
"""

import glob
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json

from pipeline.caption_sources import Part, SourceRow, fingerprint_of
from pipeline.config import FileCaptions, WebDatasetCaptions

UNDECODABLE = "undecodable bytes"
BROKEN_JSON = "broken JSON"
NO_CAPTION = "no caption"


class FileSource:
    def __init__(self, config: FileCaptions) -> None:
        if config.format != "text" and not config.column:
            raise ValueError(
                f"captions source {config.name!r}: format {config.format} needs a column"
            )
        self.config = config
        self.name = config.name
        self.licence = config.licence

    def fingerprint(self) -> str:
        return fingerprint_of(self.parts())

    def parts(self) -> list[Part]:
        return [
            Part(path.name, f"{self.config.format}:{self.config.column}:{sha256_of(path)}", rows)
            for path in found_files(self.config)
            for rows in [partial(self._rows, path)]
        ]

    def _rows(self, path: Path) -> Iterator[SourceRow]:
        number = 0
        for number, row in enumerate(self._rows_of(path), 1):  # noqa: B007
            yield row
        if not number:
            raise ValueError(f"{path} is empty: expected at least one caption")

    def _rows_of(self, path: Path) -> Iterator[SourceRow]:
        column = self.config.column or ""
        match self.config.format:
            case "text":
                return _text_rows(path)
            case "jsonl":
                return _json_rows(path, column)
            case "tsv":
                return _tsv_rows(path, column)
            case "parquet":
                return _parquet_rows(path, column)


def found_files(config: FileCaptions | WebDatasetCaptions) -> list[Path]:
    """The files that the patterns match, each once; a pattern without one is a `ValueError`."""
    if lacking := missing_files(config):
        raise ValueError("; ".join(lacking))
    return list(dict.fromkeys(path for pattern in config.paths for path in _matches(pattern)))


def missing_files(config: FileCaptions | WebDatasetCaptions) -> list[str]:
    return [
        f"captions source {config.name!r}: no file matches {pattern!r} (from {Path.cwd()})"
        for pattern in config.paths
        if not _matches(pattern)
    ]


def sha256_of(path: Path) -> str:
    state = path.stat()
    return _known_sha256(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _known_sha256(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(pattern: str) -> list[Path]:
    paths = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
    return [path for path in paths if path.is_file()]


def _lines(path: Path) -> Iterator[tuple[str, str | None]]:
    """Place and text of each line; None where its bytes are not UTF-8."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            yield f"{path.name}:{number}", _decoded(raw, number)


def _decoded(raw: bytes, number: int) -> str | None:
    line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        return None


def row_of(value: object, place: str) -> SourceRow:
    if not isinstance(value, str) or not value.strip():
        return SourceRow(None, place, NO_CAPTION)
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        return SourceRow(None, place, UNDECODABLE)  # JSON can spell half a character
    return SourceRow(value, place)


def _text_rows(path: Path) -> Iterator[SourceRow]:
    for place, line in _lines(path):
        yield SourceRow(None, place, UNDECODABLE) if line is None else row_of(line, place)


def _json_rows(path: Path, column: str) -> Iterator[SourceRow]:
    columns: set[str] = set()
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            place = f"{path.name}:{number}"
            value = _plain_object(raw)
            if value is None:
                line = _decoded(raw, number)
                if line is None:
                    yield SourceRow(None, place, UNDECODABLE)
                    continue
                value = json_object(line) if line.strip() else {}
            if value is None:
                yield SourceRow(None, place, BROKEN_JSON)
            else:
                columns.update(value)
                yield row_of(value.get(column), place)
    if columns and column not in columns:
        raise _no_column(path, column, columns)


def _plain_object(line: bytes) -> dict[str, object] | None:
    """What nearly every line is, four times faster; None where a second look is needed."""
    try:
        value = from_json(line, cache_strings="keys")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_object(line: str | bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # also numbers and nesting beyond the parser's limits
        return None
    return value if isinstance(value, dict) else None


def _tsv_rows(path: Path, column: str) -> Iterator[SourceRow]:
    """The first line names the columns; quotes are letters, as published TSV files have them."""
    lines = _lines(path)
    header = next(lines, ("", ""))[1]
    if header is None:
        raise ValueError(f"{path}: the header line is not UTF-8")
    columns = header.split("\t")
    if header and column not in columns:
        raise _no_column(path, column, columns)
    for place, line in lines:
        if line is None:
            yield SourceRow(None, place, UNDECODABLE)
        else:
            cells = dict(zip(columns, line.split("\t"), strict=False))
            yield row_of(cells.get(column), place)


def _parquet_rows(path: Path, column: str) -> Iterator[SourceRow]:
    if not path.stat().st_size:
        return
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    if column not in file.schema_arrow.names:
        raise _no_column(path, column, file.schema_arrow.names)
    kind = file.schema_arrow.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ValueError(f"{path}: column {column!r} holds {kind}, expected string")
    number = 0
    for batch in file.iter_batches(columns=[column]):
        # As bytes: one undecodable value must not lose the whole batch.
        for raw in batch.column(0).cast(pa.large_binary()).to_pylist():
            number += 1
            yield _bytes_row(raw, f"{path.name}:{number}")


def _bytes_row(raw: bytes | None, place: str) -> SourceRow:
    try:
        return row_of(raw and raw.decode("utf-8"), place)
    except UnicodeDecodeError:
        return SourceRow(None, place, UNDECODABLE)


def _no_column(path: Path, column: str, columns: set[str] | list[str]) -> ValueError:
    return ValueError(f"{path} has no column {column!r}; it has {sorted(columns)}")
