"""Rows of a table straight from its data files, where those hold them as they are.

In:    the files of a version on a local disk, and columns of fixed width or of bytes.
Out:   the bytes of a row as a view of the mapped file: nothing is decoded and nothing copied.
Rerun: reads only. A column that is compressed, may be null or is spread otherwise is `NotFlat`, and
       so is every file that is not on a local disk.

Lance promises no layout. So it is read from each file's own description, and whoever opens columns
compares some rows with what Lance takes (`probe`) before the rest is believed.

A page of a fixed width is its rows end to end. A page of bytes has before each row its length in
eight bytes, and beside the rows an index: where each one begins. A page of one row, or of rows that
are all the same, has its bytes once, after their offsets, and does not say how many rows it is.
"""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.buckets import BucketPath
from pipeline.mapped_files import Bytes, MappedFiles, NotFlat
from pipeline.tables import layout

__all__ = ["Bytes", "FlatColumn", "MappedFiles", "NotFlat", "Rows", "cut", "flat_columns"]
Rows = NDArray[np.int64]
PREFIX = 8  # bytes before a row of bytes: its length
CONSTANT, ONCE = "ConstantLayout", 28  # what stands before the bytes of such a page, in bytes
PROBED = 16  # rows
ASKED = 8  # rows of a batch, whether they are in memory: to ask of all costs a tenth of a copy


class Files(Protocol):
    def bytes_of(self, number: int) -> Bytes: ...
    def is_there(self, number: int, place: int) -> bool: ...
    def expect(self, number: int, first: int, size: int) -> None: ...


@dataclass(frozen=True)
class FlatColumn:
    files: Files
    firsts: Rows  # (F,) the first row of each file
    positions: Rows  # (N,) in the row's file
    sizes: Rows  # (N,) bytes

    def views(self, rows: Rows) -> list[Bytes]:
        places = self._at(rows)
        contents = {file: self.files.bytes_of(file) for file in {place[0] for place in places}}
        return [contents[file][first : first + size] for file, first, size in places]

    def expect(self, rows: Rows) -> None:
        """These rows are read soon. Where the few asked about are in memory, all are."""
        rows = np.unique(rows)  # in the order of the disk
        asked = self._at(rows[:: max(1, len(rows) // ASKED)])
        if not all(self.files.is_there(file, first + size // 2) for file, first, size in asked):
            for file, first, size in self._at(rows):
                self.files.expect(file, first, size)

    def _at(self, rows: Rows) -> list[tuple[int, int, int]]:
        files = np.searchsorted(self.firsts, rows, "right") - 1
        places = files.tolist(), self.positions[rows].tolist(), self.sizes[rows].tolist()
        return list(zip(*places, strict=True))

    def probe(self, column: str, take: Callable[[Rows], pa.Table]) -> None:
        """NotFlat where some rows are other bytes than what Lance gives."""
        rows = np.unique(np.linspace(0, len(self.positions) - 1, PROBED).astype(np.int64))
        given = cut(take(rows)[column]).views(np.arange(len(rows)))
        for row, ours, theirs in zip(rows, self.views(rows), given, strict=True):
            if not np.array_equal(ours, theirs):
                raise NotFlat(f"row {row} of its pages is not what Lance reads")


def flat_columns(
    paths: Sequence[Path], num_rows: int, wanted: Mapping[str, pa.DataType]
) -> tuple[dict[str, FlatColumn], dict[str, str]]:
    """The columns that are flat in all files, and of each other one why it is not.

    Raises NotFlat where no column can be: files elsewhere, too many of them, or other rows.
    """
    for path in paths:
        if isinstance(path, BucketPath) or not path.is_file():
            raise NotFlat(f"{path} is not a file of a local disk")
    files, described = MappedFiles(paths), [layout(path) for path in paths]
    counts = [int(each.num_rows) for each in described]
    if not paths or sum(counts) != num_rows:
        raise NotFlat(f"its files have {sum(counts)} rows, the version has {num_rows}")
    firsts = np.cumsum([0, *counts[:-1]], dtype=np.int64)
    found, refused = dict[str, FlatColumn](), dict[str, str]()
    for name, kind in wanted.items():
        try:
            pairs = [
                _column(files.bytes_of(number), each, name, kind)
                for number, each in enumerate(described)
            ]
        except NotFlat as why:
            refused[name] = str(why)
            continue
        positions, sizes = (np.concatenate(each) for each in zip(*pairs, strict=True))
        found[name] = FlatColumn(files, firsts, positions, sizes)
    return found, refused


def _column(content: Bytes, described: Any, name: str, kind: pa.DataType) -> tuple[Rows, Rows]:
    """Positions and sizes of a file's rows."""
    pages = described.columns[described.schema.names.index(name)].pages
    read = _fixed if pa.types.is_fixed_size_list(kind) else _ragged
    places = [read(content, page, kind) for page in pages]
    once = [place for place, page in enumerate(pages) if CONSTANT in page.encoding]
    rest = described.num_rows - sum(len(positions) for positions, _ in places)
    if rest > 0 and len(once) == 1:
        position, size = places[once[0]]
        places[once[0]] = np.repeat(position, rest + 1), np.repeat(size, rest + 1)
    elif rest:
        rows = described.num_rows - rest
        raise NotFlat(f"its pages have {rows} rows, the file {described.num_rows}")
    positions, sizes = (np.concatenate(each) for each in zip(*places, strict=True))
    return positions, sizes


def _fixed(content: Bytes, page: Any, kind: pa.DataType) -> tuple[Rows, Rows]:
    (rows, bits), buffers = _described(page, "BitsPerValue"), page.buffers
    size = kind.list_size * kind.value_type.bit_width // 8
    if bits != 8 * size or [buffer.size for buffer in buffers] != [rows * size]:
        raise NotFlat(f"a page of {rows} rows is not their {size} bytes each")
    first = buffers[0].position
    return first + size * np.arange(rows, dtype=np.int64), np.full(rows, size, np.int64)


def _ragged(content: Bytes, page: Any, kind: pa.DataType) -> tuple[Rows, Rows]:
    if CONSTANT in page.encoding:
        return _once(content, page)
    (rows, bits), buffers = _described(page, "BitsPerOffset"), page.buffers
    if bits != 8 * PREFIX or "values: None" not in page.encoding or len(buffers) != 2:
        raise NotFlat("a page is compressed")
    data, index = buffers
    width, rest = divmod(index.size, rows + 1)
    if rest or width not in (1, 2, 4, 8):
        raise NotFlat(f"the index of a page of {rows} rows has {index.size} bytes")
    stored = content[index.position : index.position + index.size]
    begins = stored.view(np.dtype(f"<u{width}")).astype(np.int64)
    sizes = np.diff(begins) - PREFIX
    if begins[0] != 0 or begins[-1] != data.size or (sizes < 0).any():
        raise NotFlat("the index of a page does not fit its rows")
    return data.position + begins[:-1] + PREFIX, sizes


def _once(content: Bytes, page: Any) -> tuple[Rows, Rows]:
    """The bytes that all rows of a page have, as if it were one row.

    In its buffer: how many buffers it holds, the length of each, then offsets, then the bytes.
    """
    if len(page.buffers) == 1:
        position, size = page.buffers[0].position + ONCE, page.buffers[0].size - ONCE
        head = struct.pack("<3I2q", 2, 16, max(size, 0), 0, size)
        if content[position - ONCE : position].tobytes() == head:
            return np.array([position]), np.array([size])
    raise NotFlat("a page of equal rows is laid out otherwise")


def _described(page: Any, unit: str) -> tuple[int, int]:
    """Rows of a page whose values stand one after the other, and bits as `unit` says them."""
    text = page.encoding
    plain = all(word in text for word in ("FullZipLayout", "bits_rep: 0,", "bits_def: 0,", "Flat("))
    rows = re.search(r"num_items: (\d+)", text)
    bits = re.search(unit + r"\(\s*(\d+)", text)
    if not plain or not rows or not bits:
        raise NotFlat("a page is laid out otherwise")
    return int(rows[1]), int(bits[1])


# --- of what is in memory -----------------------------------------------------------------------


class Chunks:
    """The contents of a column's chunks, read as files are."""

    def __init__(self, contents: Sequence[Bytes]) -> None:
        self.contents = list(contents)

    def bytes_of(self, number: int) -> Bytes:
        return self.contents[number]

    def is_there(self, number: int, place: int) -> bool:
        return True

    def expect(self, number: int, first: int, size: int) -> None:
        pass


def cut(column: pa.ChunkedArray) -> FlatColumn:
    """A column of fixed width or of bytes, without a copy."""
    contents, begins, sizes = list[Bytes](), list[Rows](), list[Rows]()
    for chunk in column.chunks:
        if pa.types.is_fixed_size_list(chunk.type):
            values = chunk.flatten().to_numpy(zero_copy_only=False)
            size = values.nbytes // max(1, len(chunk))
            ends, content = size * np.arange(len(chunk) + 1), values.view(np.uint8)
        else:
            _, offsets, data = chunk.buffers()
            width = np.int64 if pa.types.is_large_binary(chunk.type) else np.int32
            ends = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1]
            content = np.frombuffer(data or b"", np.uint8)
        contents.append(content)
        begins.append(ends[:-1].astype(np.int64))
        sizes.append(np.diff(ends).astype(np.int64))
    firsts = np.cumsum([0, *map(len, begins[:-1])], dtype=np.int64)
    return FlatColumn(Chunks(contents), firsts, np.concatenate(begins), np.concatenate(sizes))
