"""A writer of a table, as a program of its own: what tests kill, and let race with others.

python -m tests.pipeline.bucket_writer ROOT INPUTS SHARD [SHARD ...]
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from pipeline.snapshots import Snapshot, Table
from pipeline.tables import NO_COMPRESSION, TableFolder

NUMBERS = Table(
    "numbers",
    1,
    pa.schema(
        [
            pa.field("number", pa.int64(), False),
            pa.field("noise", pa.large_binary(), False, NO_COMPRESSION),
        ]
    ),
)
ROWS = 40


def rows(name: str) -> Iterator[pa.RecordBatch]:
    """The same rows for the same name, 160 kB of them."""
    drawn = np.random.default_rng(int(name, 36))
    noise = [drawn.bytes(4096) for _ in range(ROWS)]
    yield pa.record_batch([list(range(ROWS)), noise], schema=NUMBERS.schema)


def folder(root: str) -> TableFolder:
    return TableFolder(root, NUMBERS, {})


def write(root: str, inputs: str, names: Sequence[str]) -> Snapshot:
    table = folder(root)
    return table.commit([table.write_shard(name, rows(name)) for name in names], inputs)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], sys.argv[3:])
