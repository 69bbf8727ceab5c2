"""Pages read as they lie: the same bytes as Lance's, and a refusal of everything else."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.flat_pages import FlatColumn, cut, flat_columns
from pipeline.mapped_files import MappedFiles, NotFlat, raise_handles
from pipeline.table_rows import TableRows
from pipeline.tables import NO_COMPRESSION, Snapshot, Table, TableFolder, data_file, read

WIDTH = 256
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("fixed", pa.list_(pa.float16(), WIDTH), False),
        pa.field("bytes", pa.large_binary(), False, NO_COMPRESSION),
    ]
)
WIDE = {"fixed": SCHEMA.field("fixed").type, "bytes": pa.large_binary()}


def rows_of(count: int, seed: int, least: int = 400) -> pa.RecordBatch:
    random = np.random.default_rng(seed)
    fixed = pa.array(random.standard_normal(count * WIDTH).astype(np.float16))
    ragged = [random.bytes(int(n)) for n in random.integers(least, 2 * least, count)]
    columns = [
        pa.array([f"{seed}-{row}" for row in range(count)]),
        pa.FixedSizeListArray.from_arrays(fixed, type=WIDE["fixed"]),
        pa.array(ragged, pa.large_binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def table(root: Path, counts: list[int], least: int = 400, schema: pa.Schema = SCHEMA) -> Snapshot:
    folder = TableFolder(root, Table("wide", 1, schema), [counts, least])
    shards = [
        folder.write_shard(f"shard{n}", [rows_of(count, n, least).cast(schema)])
        for n, count in enumerate(counts)
    ]
    return folder.commit(shards, "in")


def opened(root: Path, snapshot: Snapshot) -> TableRows:
    return TableRows.open(root, snapshot, ["name", "fixed", "bytes"], memory_gib=0)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example([1], 300)
@example([257, 1, 513], 70_000)  # of wide rows, a file's last page may be one row
@given(st.lists(st.integers(0, 700), min_size=1, max_size=3), st.sampled_from([300, 5000]))
def test_pages_hold_what_lance_reads(tmp_path_factory, counts: list[int], least: int) -> None:
    root = tmp_path_factory.mktemp("pages")
    snapshot = table(root, counts, least)
    mapped, whole = opened(root, snapshot), read(root, snapshot)
    if not snapshot.rows:
        assert not mapped.mapped
        return
    assert sorted(mapped.mapped) == ["bytes", "fixed"]
    rows = np.random.default_rng(0).integers(0, snapshot.rows, 50)
    mapped.expect(rows)
    for name in WIDE:
        found, expected = mapped.bits(name, rows), cut(whole[name]).views(rows)
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [0, 700])
def test_rows_that_are_all_the_same_lie_in_a_page_once(tmp_path, size: int) -> None:
    rows, same = rows_of(30, 0), pa.array([bytes(range(100)) * (size // 100)] * 30)
    batch = rows.set_column(2, SCHEMA.field("bytes"), same.cast(pa.large_binary()))
    folder = TableFolder(tmp_path, Table("wide", 1, SCHEMA), [])
    mapped = opened(tmp_path, folder.commit([folder.write_shard("one", [batch])], "in"))
    found = mapped.mapped["bytes"].views(np.array([29, 0, 7]))
    assert [view.tobytes() for view in found] == same.take([29, 0, 7]).to_pylist()


def test_all_ways_of_reading_give_the_same_rows(tmp_path, monkeypatch) -> None:
    snapshot = table(tmp_path, [300, 20])
    held = TableRows.open(tmp_path, snapshot, ["name", "fixed", "bytes"], memory_gib=1)
    mapped = opened(tmp_path, snapshot)
    monkeypatch.setattr("pipeline.table_rows.mapped_columns", lambda *where: {})
    taken = opened(tmp_path, snapshot)
    rows = np.array([310, 5, 0, 319, 5])
    assert mapped.mapped
    assert not taken.mapped
    for other in (mapped, taken):
        assert held.fixed("fixed", rows).tobytes() == other.fixed("fixed", rows).tobytes()
        bits = [[view.tobytes() for view in each.bits("bytes", rows)] for each in (held, other)]
        assert bits[0] == bits[1]
        assert held.take(rows).equals(other.take(rows))


ZSTD = {"lance-encoding:compression": "zstd"}
OTHERWISE = {
    "bytes": pa.field("bytes", pa.large_binary(), False, ZSTD),
    "fixed": pa.field("fixed", pa.list_(pa.float16(), WIDTH), True),
}


@pytest.mark.parametrize("column", OTHERWISE)
def test_a_column_that_is_not_flat_is_taken(tmp_path, column, caplog) -> None:
    change = OTHERWISE[column]
    schema = SCHEMA.set(SCHEMA.names.index(column), change)
    snapshot = table(tmp_path, [300], 5000, schema)
    rows = opened(tmp_path, snapshot)
    assert list(rows.mapped) == [name for name in WIDE if name != column]
    assert change.nullable or f"{snapshot.table}.{column} is read by Lance's take" in caplog.text
    given = cut(read(tmp_path, snapshot)[column]).views(np.arange(3))
    assert [v.tobytes() for v in rows.bits(column, np.arange(3))] == [v.tobytes() for v in given]


def test_short_values_are_not_flat(tmp_path, caplog) -> None:
    rows = opened(tmp_path, table(tmp_path, [300], least=10))
    assert list(rows.mapped) == ["fixed"]
    assert "a page is laid out otherwise" in caplog.text


def test_a_probe_that_fails_falls_back_and_says_so(tmp_path, caplog, monkeypatch) -> None:
    def one_off(*given):
        found, refused = flat_columns(*given)
        return {name: moved(column) for name, column in found.items()}, refused

    def moved(column: FlatColumn) -> FlatColumn:
        places = (np.roll(each, 1) for each in (column.positions, column.sizes))
        return FlatColumn(column.files, column.firsts, *places)

    monkeypatch.setattr("pipeline.table_rows.flat_columns", one_off)
    assert opened(tmp_path, table(tmp_path, [300])).mapped == {}
    assert "row 0 of its pages is not what Lance reads" in caplog.text


def test_files_elsewhere_are_taken(tmp_path, caplog) -> None:
    snapshot = table(tmp_path, [3])
    missing = data_file(tmp_path, snapshot.table, "elsewhere")
    with pytest.raises(NotFlat, match="is not a file of a local disk"):
        flat_columns([missing], 3, WIDE)
    with pytest.raises(NotFlat, match="have 3 rows, the version has 4"):
        flat_columns([data_file(tmp_path, snapshot.table, "shard0")], 4, WIDE)


def test_mapped_rows_survive_the_way_to_another_process(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    mapped = opened(tmp_path, table(tmp_path, [300, 7]))
    assert "mapped from 2 files" in caplog.text
    rows = np.array([306, 0])
    sent = pickle.dumps(mapped)
    assert len(sent) < 40_000  # where rows are, not the rows
    other = pickle.loads(sent)
    assert other.fixed("fixed", rows).tobytes() == mapped.fixed("fixed", rows).tobytes()


def test_more_open_files_than_the_system_allows_are_refused() -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_handles(1)
    if limits[1] != resource.RLIM_INFINITY:
        with pytest.raises(NotFlat, match="open files are wanted"):
            raise_handles(limits[1])
    assert MappedFiles([]).paths == []
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == limits[1]
