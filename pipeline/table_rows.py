"""Rows of a table by number: held in memory, mapped from its files, or taken by Lance.

In:    a table at its pinned version, the columns that are wanted, and how much may be held.
Out:   rows in the order asked for; of wide columns their bytes, as views where that is possible.
Rerun: reads only. All three ways give the same bytes.

A table of up to `table_memory_gib` is held, and its checksums are compared as it is read. Of a
larger one the wide columns are mapped where their layout is flat and the files are on a local disk
(`pipeline.flat_pages`); where not, the log says why, and rows are taken in sorted order.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.buffers import Buffers
from pipeline.flat_pages import Bytes, FlatColumn, NotFlat, Rows, cut, flat_columns
from pipeline.roots import root_of
from pipeline.tables import Snapshot, at_hand, data_file, read, take

__all__ = ["Bytes", "Rows", "TableRows"]
logger = logging.getLogger(__name__)


class TableRows:
    """Some columns of a table. It pickles, so that a process may be spawned with it."""

    def __init__(
        self,
        held: pa.Table | None,
        root: Path | None = None,
        snapshot: Snapshot | None = None,
        columns: Sequence[str] = (),
        mapped: Mapping[str, FlatColumn] | None = None,
    ) -> None:
        self.held = None if held is None else held.combine_chunks()
        self.root, self.snapshot = root, snapshot
        self.columns = held.column_names if held is not None else list(columns)
        self.mapped = dict(mapped or {})
        self._cut: dict[str, FlatColumn] = {}  # of what is held
        self._memory = Buffers()

    @staticmethod
    def open(
        root: Path | str, snapshot: Snapshot, columns: Sequence[str], memory_gib: float
    ) -> "TableRows":
        """Checksums are compared where the files are read whole, which is where they are held."""
        root = root_of(root)
        size = sum(shard.size for shard in snapshot.shards)
        if size <= memory_gib * 2**30:
            return TableRows(read(root, snapshot, columns), root, snapshot, columns)
        root = at_hand(root, snapshot)
        return TableRows(None, root, snapshot, columns, mapped_columns(root, snapshot, columns))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cut": {}}

    def take(self, rows: Rows) -> pa.Table:
        """Rows by number, in the order asked for."""
        if self.held is not None:
            return self.held.take(pa.array(rows))
        return self._taken(rows, self.columns)

    def bits(self, column: str, rows: Rows) -> list[Bytes]:
        """The bytes of a wide column's rows, in the order asked for; not to be written to."""
        if column in self.mapped:
            return self.mapped[column].views(rows)
        if self.held is None:
            return cut(self._taken(rows, [column])[column]).views(np.arange(len(rows)))
        if column not in self._cut:
            self._cut[column] = cut(self.held[column])
        return self._cut[column].views(rows)

    def fixed(self, column: str, rows: Rows) -> NDArray[np.float16]:
        """Rows (B, width) of a column of equally long float16 lists."""
        return self.gathered(self.bits(column, rows))

    def gathered(self, views: Sequence[Bytes]) -> NDArray[np.float16]:
        """Rows of such a column in one piece, in memory that is used again."""
        out = self._memory.empty(len(views) * views[0].size).view(len(views), -1).numpy()
        for place, view in enumerate(views):
            out[place] = view
        return out.view(np.float16)

    def expect(self, rows: Rows) -> None:
        """These rows are asked for soon: the disk may begin."""
        for column in self.mapped.values():
            column.expect(rows)

    def whole(self, column: str) -> pa.ChunkedArray:
        """All of a small column."""
        if self.held is not None:
            return self.held[column]
        assert self.root is not None and self.snapshot is not None
        return read(self.root, self.snapshot, [column], check=False)[column]

    def _taken(self, rows: Rows, columns: Sequence[str]) -> pa.Table:
        assert self.root is not None and self.snapshot is not None
        return take(self.root, self.snapshot, rows.tolist(), columns)


def mapped_columns(root: Path, snapshot: Snapshot, columns: Sequence[str]) -> dict[str, FlatColumn]:
    """The wide columns that can be read from their pages; the log names the others."""

    def taken(rows: Rows) -> pa.Table:
        return take(root, snapshot, rows.tolist(), list(wide))

    schema = take(root, snapshot, [], columns).schema
    wide = {field.name: field.type for field in schema if _is_wide(field)}
    if not wide or not snapshot.rows:
        return {}
    filled = [shard for shard in snapshot.shards if shard.rows]
    try:
        paths = [data_file(root, snapshot.table, shard.name) for shard in filled]
        found, refused = flat_columns(paths, snapshot.rows, wide)
    except NotFlat as why:
        found, refused = {}, dict.fromkeys(wide, str(why))
    for name in list(found):
        try:
            found[name].probe(name, taken)
        except NotFlat as why:
            refused[name] = str(why)
            del found[name]
    for name, why_not in refused.items():
        logger.warning("%s.%s is read by Lance's take: %s", snapshot.table, name, why_not)
    if found:
        logger.info("%s: %s mapped from %s files", snapshot.label, sorted(found), len(filled))
    return found


def _is_wide(field: pa.Field) -> bool:
    types = pa.types
    fixed = types.is_fixed_size_list(field.type)
    return not field.nullable and (fixed or types.is_large_binary(field.type))
