"""Rows on their way into a data file: whatever sizes they come in, the same bytes come out.

In:    batches under a contract.
Out:   record batches of `CHUNK_ROWS` rows, fewer where rows are wide, with buffers of exactly these
       rows, and the schema under which Lance writes them the same each time.
Rerun: the bytes of a data file are a function of its rows.

Values that are wide are copied once, into memory that is used again (`pipeline.blocks`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.blocks import Blocks
from pipeline.snapshots import Table

# Rows of one write. The bytes of a data file depend on it, so it is fixed.
CHUNK_ROWS = 256
# Of wide values at once, fixed for the same reason. Lance lays them out in one allocation, and one
# of 32 MiB or more glibc asks of the system anew each time, which clears it page by page.
CHUNK_BYTES = 16 * 2**20
NO_COMPRESSION = {"lance-encoding:compression": "none"}  # for bytes that are compressed already


def chunked(
    batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, table: str, memory: Blocks
) -> Iterator[pa.RecordBatch]:
    """The same rows in chunks of a fixed size, whatever sizes they came in."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(_conforming(batch, schema, table))
        count += batch.num_rows
        while count >= CHUNK_ROWS:
            whole = pa.concat_tables(waiting)
            yield from _pieces(whole.slice(0, CHUNK_ROWS), schema, memory)
            waiting, count = [whole.slice(CHUNK_ROWS)], count - CHUNK_ROWS
    if count:
        yield from _pieces(pa.concat_tables(waiting), schema, memory)


def _conforming(batch: pa.RecordBatch | pa.Table, schema: pa.Schema, table: str) -> pa.Table:
    rows = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if rows.schema.names != schema.names:
        raise ValueError(f"{table}: columns {rows.schema.names}, expected {schema.names}")
    for column in schema:
        if not column.nullable and rows[column.name].null_count:
            raise ValueError(f"{table}.{column.name}: null in a column that allows none")
    return rows.cast(schema)


def _pieces(rows: pa.Table, schema: pa.Schema, memory: Blocks) -> Iterator[pa.RecordBatch]:
    """A chunk in as many equal parts as its wide values need."""
    size = sum(_size(column) for column in rows.columns if _is_wide(column))
    step = -(-len(rows) // max(1, -(-size // CHUNK_BYTES)))
    for first in range(0, len(rows), step):
        yield _canonical(rows.slice(first, step), schema, memory)


def _size(column: pa.ChunkedArray) -> int:
    """Bytes of the values of a wide column; `nbytes` would depend on how they came."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        return len(column) * int(kind.list_size) * int(kind.value_type.bit_width) // 8
    ends = [_ends(piece) for piece in column.chunks if len(piece)]
    return sum(int(each[-1] - each[0]) for each in ends)


def _canonical(rows: pa.Table, schema: pa.Schema, memory: Blocks) -> pa.RecordBatch:
    """Buffers of exactly these rows: Lance also sees the bytes around a slice."""
    wide = {column.name for column in schema if _is_wide(rows[column.name])}
    found = {name: _gathered(rows[name], memory) for name in wide}
    rest = rows.select([name for name in schema.names if name not in wide])
    if rest.num_columns:
        (batch,) = rest.combine_chunks().to_batches()
        batch = pa.ipc.read_record_batch(batch.serialize(), batch.schema)
        found |= zip(batch.schema.names, batch.columns, strict=True)
    return pa.RecordBatch.from_arrays([found[name] for name in schema.names], schema=schema)


def _is_wide(column: pa.ChunkedArray) -> bool:
    """Bytes, or lists of as many numbers each, and nothing missing."""
    types, kind = pa.types, column.type
    if types.is_fixed_size_list(kind):
        numbers = types.is_integer(kind.value_type) or types.is_floating(kind.value_type)
        return numbers and not any(c.null_count or c.flatten().null_count for c in column.chunks)
    return types.is_large_binary(kind) and not column.null_count


def _gathered(column: pa.ChunkedArray, memory: Blocks) -> pa.Array:
    """A wide column in one piece."""
    kind, pieces = column.type, [chunk for chunk in column.chunks if len(chunk)]
    if pa.types.is_fixed_size_list(kind):
        values = _joined([piece.flatten().to_numpy() for piece in pieces], memory)
        flat = pa.Array.from_buffers(kind.value_type, len(column) * kind.list_size, [None, values])
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    ends = [_ends(piece) for piece in pieces]
    content = [
        np.frombuffer(piece.buffers()[2] or b"", np.uint8)[each[0] : each[-1]]
        for piece, each in zip(pieces, ends, strict=True)
    ]
    begins = np.cumsum(np.concatenate([[0], *map(np.diff, ends)]), dtype=np.int64)
    buffers = [None, pa.py_buffer(begins), _joined(content, memory)]
    return pa.Array.from_buffers(kind, len(column), buffers)


def _ends(piece: pa.LargeBinaryArray) -> NDArray[np.int64]:
    """(rows + 1,) where each begins in the buffer of bytes, and where the last ends."""
    return np.frombuffer(piece.buffers()[1], np.int64)[piece.offset :][: len(piece) + 1]


def _joined(pieces: Sequence[NDArray[Any]], memory: Blocks) -> pa.Buffer:
    out = memory.empty(sum(piece.nbytes for piece in pieces))
    np.concatenate([piece.view(np.uint8) for piece in pieces], out=out)
    return pa.py_buffer(out)


def reproducible(schema: pa.Schema) -> pa.Schema:
    """Texts as they are: by default Lance compresses longer ones after a random sample (FSST)."""
    return pa.schema(
        [column.with_metadata(NO_COMPRESSION) if _is_text(column) else column for column in schema],
        metadata=schema.metadata,
    )


def _is_text(column: pa.Field) -> bool:
    types = pa.types
    text = types.is_string(column.type) or types.is_large_string(column.type)
    binary = types.is_binary(column.type) or types.is_large_binary(column.type)
    return (text or binary) and not column.metadata


def check_contract(table: Table) -> None:
    """Two metadata keys are written in a random order, so files would not be reproducible."""
    metadata = [table.schema.metadata, *(column.metadata for column in table.schema)]
    assert all(len(each or {}) <= 1 for each in metadata), f"{table.name}: one metadata key a field"
