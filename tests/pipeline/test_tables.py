"""Tables on real Lance files: one version, whole shards, named damage, the same bytes each time."""

import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tables import (
    MEMORY,
    NO_COMPRESSION,
    Manifest,
    Snapshot,
    Table,
    TableDamaged,
    TableFolder,
    Work,
    batches,
    data_file,
    digest,
    give_back_memory,
    read,
    take,
)
from pipeline.verification import verify as verify_root

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("bits", pa.large_binary(), nullable=True, metadata=NO_COMPRESSION),
        pa.field("wide", pa.list_(pa.float16(), 300), nullable=False),
    ]
)
TABLE = Table("things", 1, SCHEMA)
SHARDS, ROWS = 6, 500


def rows(first: int, count: int) -> pa.RecordBatch:
    """A pure function of the row numbers."""
    numbers = np.arange(first, first + count)
    wide = (numbers[:, None] * 7 + np.arange(300)) % 251
    return pa.record_batch(
        [
            pa.array([f"row {n}" for n in numbers]),
            pa.array([b"%d" % n * 40 if n % 3 else None for n in numbers], pa.large_binary()),
            pa.FixedSizeListArray.from_arrays(pa.array(wide.ravel().astype(np.float16)), 300),
        ],
        schema=SCHEMA,
    )


def folder(root: Path, values: object = None) -> TableFolder:
    return TableFolder(root, TABLE, values)


def fill(root: Path, shards: int = SHARDS, pause: float = 0.0) -> Snapshot:
    place = folder(root)

    def slowly(number: int):
        for start in range(0, ROWS, 100):
            time.sleep(pause)
            yield rows(number * ROWS + start, 100)

    written = [place.write_shard(f"shard{number}", slowly(number)) for number in range(shards)]
    return place.commit(written, "in" + str(shards))


def sums(root: Path) -> dict[str, str]:
    files = sorted((folder(root).path / "data").glob("*.lance"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def verify(root: Path, snapshot: Snapshot) -> list[str]:
    """Damaged files of a root that holds this snapshot alone, each with what is wrong."""
    damages = verify_root(root, quarantine=False).damages
    return [f"{root / damage.place} {damage.what}" for damage in damages]


def num_versions(root: Path) -> int:
    return len(lance.dataset(str(folder(root).path)).versions())


def test_rows_come_back_in_order_by_column_and_by_shard(tmp_path):
    snapshot = fill(tmp_path)
    assert snapshot.rows == SHARDS * ROWS
    table = read(tmp_path, snapshot)
    assert table.equals(pa.Table.from_batches([rows(0, SHARDS * ROWS)]).cast(SCHEMA))
    part = read(tmp_path, snapshot, ["key"], ["shard4", "shard1"])
    assert part.column_names == ["key"]
    assert part["key"][0].as_py() == f"row {ROWS}"
    assert len(part) == 2 * ROWS


def test_pieces_and_picked_rows_are_those_of_the_whole(tmp_path):
    snapshot = fill(tmp_path, 3)
    pieces = list(batches(tmp_path, snapshot, ["key", "bits"], ["shard2"]))
    assert max(map(len, pieces)) <= 256
    whole = read(tmp_path, snapshot, ["key", "bits"])
    assert pa.concat_tables(pieces).equals(whole.slice(2 * ROWS))
    assert take(tmp_path, snapshot, [900, 3, 900], ["key"])["key"].to_pylist() == [
        "row 900",
        "row 3",
        "row 900",
    ]
    assert len(take(tmp_path, snapshot, [], ["key"])) == 0


def test_a_rerun_reads_nothing_and_adds_nothing(tmp_path):
    first, before = fill(tmp_path), sums(tmp_path)

    def never():
        raise AssertionError("a whole shard was made again")
        yield

    place = folder(tmp_path)
    again = [place.write_shard(f"shard{n}", never()) for n in range(SHARDS)]
    assert place.commit(again, f"in{SHARDS}") == first
    assert num_versions(tmp_path) == 1
    assert sums(tmp_path) == before
    assert place.find(f"in{SHARDS}") == first
    assert place.find("other") is None


def test_a_grown_input_is_a_new_version_over_the_same_files(tmp_path):
    small, before = fill(tmp_path, 4), sums(tmp_path)
    large = fill(tmp_path, 6)
    assert (small.version, large.version) == (1, 2)
    assert large.shards[:4] == small.shards
    assert {k: v for k, v in sums(tmp_path).items() if k in before} == before
    assert len(read(tmp_path, small)) == 4 * ROWS
    assert len(read(tmp_path, large)) == 6 * ROWS
    assert [s.version for s in folder(tmp_path).history()] == [2, 1]
    assert set(lance.dataset(str(folder(tmp_path).path)).tags.list()) == {"in4", "in6"}


def test_other_values_other_code_or_another_contract_is_another_table(tmp_path):
    names = {
        folder(tmp_path).name,
        folder(tmp_path, {"teacher": "a"}).name,
        TableFolder(tmp_path, Table("things", 2, SCHEMA), None).name,
        TableFolder(tmp_path, Table("things", 1, SCHEMA.remove(2)), None).name,
    }
    assert len(names) == 4
    assert all(name.startswith("things-") for name in names)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 700), max_size=8), as_table=st.booleans())
def test_bytes_do_not_depend_on_how_rows_arrive(tmp_path_factory, cuts, as_table):
    whole = rows(0, 700)
    places = sorted({0, 700, *cuts})
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(places)]
    if as_table:
        pieces = [pa.Table.from_batches([piece]) for piece in pieces]
    root = tmp_path_factory.mktemp("pieces")
    one = folder(root).write_shard("one", [whole])
    other = folder(root).write_shard("other", pieces)
    assert one.sha256 == other.sha256
    assert other.rows == 700


def test_long_texts_have_the_same_bytes_each_time(tmp_path):
    """Lance's own choice of a compression for them begins with a random sample."""
    generator = random.Random(0)
    words = [f"{generator.getrandbits(40):x}" for _ in range(500)]
    texts = [" ".join(generator.choices(words, k=30)) for _ in range(2000)]
    schema = pa.schema([pa.field("text", pa.string(), False), pa.field("more", pa.string())])
    batch = pa.record_batch([texts, texts[::-1]], schema=schema)
    sums = set()
    for number in range(3):
        folder = TableFolder(tmp_path / str(number), Table("texts", 1, schema), {})
        sums.add(folder.write_shard("one", [batch]).sha256)
        snapshot = folder.commit([folder.stated_shard("one")], "x")
    assert len(sums) == 1
    assert read(tmp_path / "2", snapshot)["text"].to_pylist() == texts


def test_a_shard_without_rows_is_a_file_and_no_rows(tmp_path):
    place = folder(tmp_path)
    shards = [place.write_shard("full", [rows(0, 10)]), place.write_shard("empty", [])]
    assert shards[1].rows == 0
    assert len(read(tmp_path, place.commit(shards, "some"))) == 10
    nothing = place.commit(shards[1:], "nothing")
    assert read(tmp_path, nothing).schema.names == SCHEMA.names
    assert place.find("nothing") == nothing


def test_a_written_shard_can_be_read_before_it_is_committed(tmp_path):
    place = folder(tmp_path)
    written = place.read_shard(place.write_shard("one", [rows(0, 300)]))
    assert written.equals(pa.Table.from_batches([rows(0, 300)]).cast(SCHEMA))
    assert len(place.read_shard(place.write_shard("none", []))) == 0


def test_shards_share_memory_until_it_is_given_back(tmp_path):
    give_back_memory()
    folder(tmp_path).write_shard("one", [rows(0, 700)])
    block = MEMORY._free[0]
    folder(tmp_path).write_shard("other", [rows(700, 600)])
    assert any(each is block for each in MEMORY._free)
    give_back_memory()
    assert not MEMORY._free


def test_wrong_columns_and_nulls_are_refused_and_leave_no_file(tmp_path):
    place = folder(tmp_path)
    with pytest.raises(ValueError, match=r"columns \['key'\], expected"):
        place.write_shard("a", [rows(0, 3).select(["key"])])
    nulls = rows(0, 3).set_column(0, "key", pa.array(["a", None, "c"]))
    with pytest.raises(ValueError, match=r"things-\w+\.key: null"):
        place.write_shard("a", [nulls])
    assert not [p for p in (place.path / "data").iterdir() if p.is_file()]


def test_two_metadata_keys_are_refused():
    field = pa.field("a", pa.string(), metadata={"one": "1", "two": "2"})
    with pytest.raises(AssertionError, match="one metadata key"):
        TableFolder("x", Table("bad", 1, pa.schema([field])), None)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [_flip, _cut, Path.unlink])
def test_damage_is_named_quarantined_and_made_again(tmp_path, harm, caplog):
    snapshot, before = fill(tmp_path), sums(tmp_path)
    victim = data_file(tmp_path, snapshot.table, "shard2")
    harm(victim)
    assert [str(victim) in line for line in verify(tmp_path, snapshot)] == [True]
    with pytest.raises(TableDamaged, match=str(victim)):
        read(tmp_path, snapshot)
    assert len(read(tmp_path, snapshot, ["key"], ["shard1"])) == ROWS
    assert (folder(tmp_path).find(snapshot.tag) is None) == (harm is not _flip)
    with caplog.at_level(logging.WARNING):
        assert fill(tmp_path) == snapshot
    assert sums(tmp_path) == before
    assert verify(tmp_path, snapshot) == []
    if harm is not Path.unlink:
        assert "is damaged: moved to" in caplog.text
        assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_what_another_writer_just_put_there_is_not_taken_for_damaged(tmp_path, monkeypatch):
    exists, other = Path.exists, []

    def looked(path: Path) -> bool:
        there = exists(path)
        if path.name == "a.lance" and not other:
            other.append(None)
            other[0] = folder(tmp_path).write_shard("a", [rows(0, 5)])
        return there

    monkeypatch.setattr(Path, "exists", looked)
    assert folder(tmp_path).write_shard("a", [rows(0, 5)]) == other[0]
    assert not exists(tmp_path / "quarantine")
    assert folder(tmp_path).whole_shard("a") == other[0]


def test_a_shard_without_its_sum_is_not_trusted(tmp_path):
    snapshot = fill(tmp_path)
    (folder(tmp_path).path / "sums" / "shard0.json").write_bytes(b"")
    assert folder(tmp_path).whole_shard("shard0") is None
    assert fill(tmp_path) == snapshot


def test_an_empty_manifest_is_named_and_its_removal_heals(tmp_path):
    fill(tmp_path, 4)
    snapshot = fill(tmp_path)
    manifest = min((folder(tmp_path).path / "_versions").glob("*.manifest"))  # the newest
    manifest.write_bytes(b"")
    for act in (
        lambda: read(tmp_path, snapshot),
        lambda: folder(tmp_path).find(snapshot.tag),
        lambda: fill(tmp_path),
    ):
        with pytest.raises(TableDamaged, match=f"{manifest} is empty"):
            act()
    assert any(str(manifest) in line for line in verify(tmp_path, snapshot))
    manifest.unlink()
    assert folder(tmp_path).find(snapshot.tag) is None
    assert fill(tmp_path) == snapshot
    assert len(read(tmp_path, snapshot)) == snapshot.rows


def test_a_damaged_record_is_named(tmp_path):
    snapshot = fill(tmp_path)
    record = tmp_path / "snapshots" / f"{snapshot.table}-{snapshot.tag}.json"
    record.write_text("{")
    with pytest.raises(TableDamaged, match=str(record)):
        folder(tmp_path).find(snapshot.tag)
    record.unlink()
    assert fill(tmp_path) == snapshot
    assert num_versions(tmp_path) == 1


def test_a_commit_that_died_before_its_record_is_found_again(tmp_path):
    snapshot = fill(tmp_path)
    (tmp_path / "snapshots" / f"{snapshot.table}-{snapshot.tag}.json").unlink()
    lance.dataset(str(folder(tmp_path).path)).tags.delete(snapshot.tag)
    assert folder(tmp_path).find(snapshot.tag) is None
    assert fill(tmp_path) == snapshot
    assert num_versions(tmp_path) == 1


def test_stale_leftovers_are_swept_and_fresh_ones_spared(tmp_path):
    fill(tmp_path)
    data = folder(tmp_path).path / "data"
    old, grows, fresh = (data / f".shard{n}.abc.part" for n in (9, 8, 7))
    for path in (old, grows, fresh):
        path.mkdir()
        (path / ".tmpAbC").write_bytes(b"half")
    for path in (old / ".tmpAbC", old, grows):
        os.utime(path, (time.time() - 90_000,) * 2)
    fill(tmp_path)
    assert [path.exists() for path in (old, grows, fresh)] == [False, True, True]


def test_many_processes_at_once_make_one_version(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        snapshots = pool.map(fill, [tmp_path] * 8)
    assert all(snapshot == snapshots[0] for snapshot in snapshots)
    assert num_versions(tmp_path) == 1
    assert len(read(tmp_path, snapshots[0])) == SHARDS * ROWS
    assert not list((folder(tmp_path).path / "data").glob(".*.part"))


def test_killed_writers_leave_what_an_undisturbed_one_makes(tmp_path):
    clean = tmp_path / "clean"
    expected = fill(clean)
    root = tmp_path / "killed"
    dice = random.Random(5)
    program = [sys.executable, __file__, str(root)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    kills = 0
    while kills < 6:
        writer = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()  # it begins to write
        time.sleep(dice.uniform(0.0, 0.5))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        kills += 1
    assert fill(root) == expected
    assert sums(root) == sums(clean)
    assert num_versions(root) == 1
    assert verify(root, expected) == []


def test_manifests_survive_json(tmp_path):
    manifest = Manifest.of("things", {"things": fill(tmp_path, 2)})
    text = json.dumps(manifest.to_json())
    assert Manifest.from_json(json.loads(text)) == manifest
    assert manifest.content == digest({"things": manifest.snapshots["things"].content})


def test_work_survives_json():
    work = Work("a", ("b",), 3, 4)
    assert Work("a", tuple(json.loads(json.dumps(work.sources))), 3, 4) == work


if __name__ == "__main__":
    print("writing", flush=True)
    fill(Path(sys.argv[1]), pause=0.02)
