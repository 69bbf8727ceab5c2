"""Rows on their way into a data file: whatever sizes they come in, the same bytes come out.

In:    batches under a contract.
Out:   record batches of `CHUNK_ROWS` rows with buffers of exactly these rows, and the schema under
       which Lance writes them the same each time.
Rerun: the bytes of a data file are a function of its rows.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline.snapshots import Table

# Rows of one write. The bytes of a data file depend on it, so it is fixed.
CHUNK_ROWS = 256
NO_COMPRESSION = {"lance-encoding:compression": "none"}  # for bytes that are compressed already


def chunked(
    batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, table: str
) -> Iterator[pa.RecordBatch]:
    """The same rows in chunks of a fixed size, whatever sizes they came in."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(_conforming(batch, schema, table))
        count += batch.num_rows
        while count >= CHUNK_ROWS:
            whole = pa.concat_tables(waiting)
            yield _canonical(whole.slice(0, CHUNK_ROWS), schema)
            waiting, count = [whole.slice(CHUNK_ROWS)], count - CHUNK_ROWS
    if count:
        yield _canonical(pa.concat_tables(waiting), schema)


def _conforming(batch: pa.RecordBatch | pa.Table, schema: pa.Schema, table: str) -> pa.Table:
    rows = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if rows.schema.names != schema.names:
        raise ValueError(f"{table}: columns {rows.schema.names}, expected {schema.names}")
    for column in schema:
        if not column.nullable and rows[column.name].null_count:
            raise ValueError(f"{table}.{column.name}: null in a column that allows none")
    return rows.cast(schema)


def _canonical(rows: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """Buffers of exactly these rows: Lance also sees the bytes around a slice."""
    (batch,) = rows.combine_chunks().to_batches()
    return pa.ipc.read_record_batch(batch.serialize(), schema)


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
