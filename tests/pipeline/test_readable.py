"""Every table opens in plain lancedb, Polars and DuckDB, in the one line that the README gives."""

from pathlib import Path

import lance
import pytest

from pipeline.ledger import entries
from pipeline.snapshots import Snapshot
from pipeline.tables import read


def tables(root: Path) -> list[Snapshot]:
    found = [snapshot for entry in entries(root) for snapshot in entry.tables.values()]
    assert len(found) == 9
    return found


def narrow(dataset: lance.LanceDataset) -> list[str]:
    """Without float16, which DuckDB does not know."""
    return [column.name for column in dataset.schema if "halffloat" not in str(column.type)]


def test_lancedb_opens_every_table_and_reads_the_same_rows(whole):
    lancedb = pytest.importorskip("lancedb")
    database = lancedb.connect(f"{whole.root}/tables")
    for snapshot in tables(Path(whole.root)):
        assert database.open_table(snapshot.table).to_arrow().equals(read(whole.root, snapshot))


def test_lancedb_searches_a_table_by_sql(whole):
    lancedb = pytest.importorskip("lancedb")
    snapshot = next(s for s in tables(Path(whole.root)) if s.table.startswith("captions-"))
    table = lancedb.connect(f"{whole.root}/tables").open_table(snapshot.table)
    assert len(table.search().where("keep").limit(100).to_list()) == table.count_rows("keep")


def test_polars_scans_every_table(whole):
    polars = pytest.importorskip("polars")
    for snapshot in tables(Path(whole.root)):
        dataset = lance.dataset(f"{whole.root}/tables/{snapshot.table}.lance")
        assert len(polars.scan_pyarrow_dataset(dataset).collect()) == snapshot.rows


def test_duckdb_queries_every_table(whole):
    duckdb = pytest.importorskip("duckdb")
    for snapshot in tables(Path(whole.root)):
        dataset = lance.dataset(f"{whole.root}/tables/{snapshot.table}.lance")
        rows = dataset.scanner(columns=narrow(dataset))
        assert duckdb.sql("select count(*) from rows").fetchall() == [(snapshot.rows,)]
        assert rows is not None
