"""Chunks: the same bytes as a plain copy of the same rows has, in memory that is used again."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lance.file import LanceFileWriter

from pipeline import chunks
from pipeline.blocks import Blocks
from pipeline.chunks import CHUNK_ROWS, NO_COMPRESSION, chunked, reproducible

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), False),
        pa.field("bits", pa.large_binary(), False, NO_COMPRESSION),
        pa.field("perhaps", pa.large_binary(), metadata=NO_COMPRESSION),
        pa.field("numbers", pa.list_(pa.float16(), 150), False),
        pa.field("flags", pa.list_(pa.bool_(), 5), False),
    ]
)
ROWS = 2 * CHUNK_ROWS + 70


def rows_of(seed: int, missing: float) -> pa.Table:
    """Rows whose bytes are of many lengths, none among them, and those that may be are missing."""
    random = np.random.default_rng(seed)
    bits = [random.bytes(length) for length in random.integers(0, 90, ROWS)]
    perhaps = [None if random.random() < missing else one[::-1] for one in bits]
    numbers = random.standard_normal(ROWS * 150).astype(np.float16)
    flags = pa.array(random.random(ROWS * 5) < 0.5)
    lists = (
        pa.FixedSizeListArray.from_arrays(each, len(each) // ROWS) for each in (numbers, flags)
    )
    columns = [[f"row {n}" for n in range(ROWS)], bits, perhaps, *lists]
    arrays = [
        pa.array(c, f.type) if isinstance(c, list) else c
        for c, f in zip(columns, SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def plainly(rows: pa.Table) -> Iterator[pa.RecordBatch]:
    """Each chunk written down and read again."""
    for first in range(0, ROWS, CHUNK_ROWS):
        (batch,) = rows.slice(first, CHUNK_ROWS).combine_chunks().to_batches()
        yield pa.ipc.read_record_batch(batch.serialize(), rows.schema)


def written(path: Path, chunks: Iterator[pa.RecordBatch]) -> str:
    with LanceFileWriter(str(path), schema=reproducible(SCHEMA), version="2.2") as writer:
        for chunk in chunks:
            writer.write_batch(chunk)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, ROWS), max_size=6), st.sampled_from([0, 0.3]), st.booleans())
def test_a_file_has_the_bytes_that_a_plain_copy_has(tmp_path_factory, cuts, missing, twice) -> None:
    rows, folder = rows_of(len(cuts), missing), tmp_path_factory.mktemp("files")
    places = sorted({0, ROWS, *cuts})
    pieces = [rows.slice(a, b - a) for a, b in itertools.pairwise(places)]
    if twice:  # each piece in pieces itself
        pieces = [pa.concat_tables([p.slice(0, 3), p.slice(3)]) for p in pieces]
    chunks = chunked(pieces, reproducible(SCHEMA), "things", Blocks())
    plain = written(folder / "plain", plainly(rows.cast(reproducible(SCHEMA))))
    assert written(folder / "ours", chunks) == plain


def test_buffers_have_exactly_their_rows() -> None:
    for chunk in chunked([rows_of(1, 0)], reproducible(SCHEMA), "things", Blocks()):
        _, ends, content = chunk["bits"].buffers()
        assert ends.size == 8 * (len(chunk) + 1)
        assert np.frombuffer(ends, np.int64)[[0, -1]].tolist() == [0, content.size]
        assert chunk["perhaps"].buffers()[0] is None
        assert chunk["numbers"].flatten().buffers()[1].size == len(chunk) * 300


def test_the_memory_of_a_chunk_is_used_again_once_nobody_holds_it() -> None:
    rows, memory, places = rows_of(2, 0), Blocks(), []
    for chunk in chunked(itertools.repeat(rows, 6), reproducible(SCHEMA), "things", memory):
        places.append(chunk["numbers"].flatten().buffers()[1].address)
        del chunk
    assert len(places) > 10
    assert len(set(places)) <= 2
    held = list(chunked([rows], reproducible(SCHEMA), "things", memory))
    assert pa.Table.from_batches(held).equals(rows.cast(reproducible(SCHEMA)))


@given(st.lists(st.integers(0, ROWS), max_size=4))
@settings(max_examples=10, deadline=None)
def test_wide_rows_come_in_equal_parts_however_they_arrive(cuts: list[int]) -> None:
    rows, schema = rows_of(3, 0), reproducible(SCHEMA)
    places = sorted({0, ROWS, *cuts})
    arriving = [rows.slice(a, b - a) for a, b in itertools.pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", 40_000)
        found = list(chunked(arriving, schema, "things", Blocks()))
    # Each row has 300 bytes of numbers and about 90 of bits: three parts of 256, one of 70.
    assert [len(each) for each in found] == [86, 86, 84, 86, 86, 84, 70]
    assert pa.Table.from_batches(found).equals(rows.cast(schema))
