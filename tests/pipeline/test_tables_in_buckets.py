"""Tables in a bucket: the same bytes as in a folder, whoever dies or races meanwhile."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from pipeline.buckets import settings
from pipeline.roots import near, root_of
from pipeline.seals import sha256_of
from pipeline.tables import TableDamaged, committed, missing_files, read, take
from pipeline.verification import verify
from tests.pipeline.bucket_writer import ROWS, folder, rows, write

Bucket = Callable[[str], str]
NAMES = ("a", "b", "c")


def files(root: str, pattern: str = "tables/*/*/*.*") -> dict[str, str]:
    place = root_of(root)
    found = (path for path in place.glob(pattern) if "_versions" not in path.parts)
    lasting = (path for path in found if not {"_transactions", "_refs"} & set(path.parts))
    return {path.relative_to(place).as_posix(): sha256_of(path) for path in lasting}


def writer(root: str, inputs: str, names: tuple[str, ...], cache: Path) -> Any:
    """A machine of its own: it has no file in common with any other."""
    command = [sys.executable, "-m", "tests.pipeline.bucket_writer", root, inputs, *names]
    return subprocess.Popen(
        command, env={**os.environ, "LIGHTGEN_CACHE": str(cache)}, stderr=subprocess.PIPE
    )


@pytest.fixture
def wanted(tmp_path: Path) -> dict[str, str]:
    """The files that a folder would hold."""
    write(str(tmp_path / "folder"), "input", NAMES)
    return files(str(tmp_path / "folder"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, the test goes on as another machine, which has nothing near."""
    return lambda: monkeypatch.setenv("LIGHTGEN_CACHE", str(tmp_path / "elsewhere"))


def test_the_files_are_those_of_a_folder(bucket: Bucket, wanted: dict[str, str]) -> None:
    write(bucket("x"), "input", NAMES)

    assert files(bucket("x")) == wanted


def test_another_machine_reads_what_was_written(bucket: Bucket, elsewhere: Any) -> None:
    snapshot = write(bucket("x"), "input", NAMES)
    elsewhere()

    whole = read(bucket("x"), snapshot)
    second = read(bucket("x"), snapshot, shards=["b"])

    assert whole == pa.concat_tables([pa.Table.from_batches(rows(name)) for name in NAMES])
    assert second == pa.Table.from_batches(rows("b"))
    assert take(bucket("x"), snapshot, [90, 3], ["number"])["number"].to_pylist() == [10, 3]


def test_a_few_values_are_read_without_bringing_the_files(
    bucket: Bucket, elsewhere: Any, object_store: Any
) -> None:
    snapshot = write(bucket("x"), "input", NAMES)
    elsewhere()

    numbers = read(bucket("x"), snapshot, ["number"], check=False)["number"].to_pylist()
    row = take(bucket("x"), snapshot, [41], ["number"])["number"].to_pylist()

    assert (numbers, row) == ([*range(ROWS)] * 3, [1])
    assert not list(near(root_of(bucket("x"))).rglob("*.lance/data/*"))


def test_a_rerun_on_another_machine_puts_nothing(
    bucket: Bucket, elsewhere: Any, object_store: Any
) -> None:
    first = write(bucket("x"), "input", NAMES)
    elsewhere()
    before = files(bucket("x"))
    object_store.asked.clear()

    again = write(bucket("x"), "input", NAMES)

    puts = [request for request in object_store.asked if request.startswith("PUT")]
    assert all("/.probe/" in request or "/snapshots/" in request for request in puts)
    assert (again, files(bucket("x"))) == (first, before)


def test_growth_puts_only_its_shards(bucket: Bucket, object_store: Any) -> None:
    first = write(bucket("x"), "few", NAMES)
    object_store.asked.clear()

    second = write(bucket("x"), "more", (*NAMES, "d"))

    puts = [request for request in object_store.asked if request.startswith("PUT")]
    assert [request.rpartition("/")[2] for request in puts if "/data/" in request] == ["d.lance"]
    assert second.shards[:3] == first.shards
    assert {each.tag for each in committed(root_of(bucket("x")))} == {"few", "more"}


def test_plain_lance_reads_the_table_by_its_tag(bucket: Bucket) -> None:
    snapshot = write(bucket("x"), "input", NAMES)

    where = f"{bucket('x')}/tables/{snapshot.table}.lance"
    found = lance.dataset(where, version="input", storage_options=dict(settings()))

    assert found.count_rows() == 3 * ROWS


def test_machines_that_commit_at_once_lose_nothing(
    bucket: Bucket, tmp_path: Path, object_store: Any
) -> None:
    meet = threading.Barrier(3)
    met: set[str] = set()

    def wait(request: str) -> None:  # until each has read what the others did not yet commit
        if "_versions" in request and request.startswith("PUT") and len(met) < 3:
            met.add(request + str(threading.get_ident()))
            meet.wait(30)

    object_store.before = wait
    names = [("a", "b"), ("b", "c"), ("a", "c")]
    machines = [
        writer(bucket("x"), f"input-{n}", names[n], tmp_path / f"machine-{n}") for n in range(3)
    ]

    assert [(machine.wait(60), machine.stderr.read()) for machine in machines] == [(0, b"")] * 3
    found = {each.tag: each for each in committed(root_of(bucket("x")))}
    assert sorted(each.version for each in found.values()) == [1, 2, 3]
    for number, shards in enumerate(names):
        snapshot = found[f"input-{number}"]
        assert [shard.name for shard in snapshot.shards] == list(shards)
        assert len(read(bucket("x"), snapshot)) == 2 * ROWS


MOMENTS = {
    "in the middle of an upload": "/data/b.lance",
    "between a shard and its sum": "/sums/b.json",
    "between the uploads and the commit": "/_transactions/",
    "in the commit": "/_versions/",
    "between the commit and its tag": "/_refs/tags/",
    "before its record": "/snapshots/",
}


@pytest.mark.parametrize("part", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_writer_that_is_killed_is_resumed_elsewhere_with_the_same_bytes(
    part: str, bucket: Bucket, wanted: dict[str, str], tmp_path: Path, object_store: Any
) -> None:
    machine = writer(bucket("x"), "input", NAMES, tmp_path / "first")

    def kill(request: str) -> None:
        if request.startswith("PUT") and part in request and machine.poll() is None:
            machine.kill()
            machine.wait()

    object_store.before = kill
    assert machine.wait(60) == -9
    object_store.before = lambda request: None

    snapshot = write(bucket("x"), "input", NAMES)

    assert files(bucket("x")) == wanted
    assert len(list(root_of(bucket("x")).glob("tables/*/_versions/*.manifest"))) == 1
    assert not missing_files(root_of(bucket("x")), snapshot)
    assert len(read(bucket("x"), snapshot)) == 3 * ROWS
    machine.stderr.close()


def test_verify_finds_a_flipped_byte_and_a_missing_object_and_only_these_are_made_again(
    bucket: Bucket, wanted: dict[str, str], elsewhere: Any, object_store: Any
) -> None:
    write(bucket("x"), "input", NAMES)
    flipped, missing = sorted(root_of(bucket("x")).glob("tables/*/data/*"))[:2]
    data = bytearray(flipped.read_bytes())
    data[5000] ^= 1
    # The store itself keeps what was said of the object: nothing but its bytes is wrong.
    flipped.put(bytes(data), flipped.stated(), absent=False)  # type: ignore[attr-defined]
    missing.unlink()
    elsewhere()

    damages = verify(root_of(bucket("x"))).damages

    names = [(Path(damage.place).name, damage.what) for damage in damages]
    assert names == [
        ("a.lance", "has another checksum than when it was written"),
        ("b.lance", "is missing"),
    ]
    object_store.asked.clear()
    write(bucket("x"), "input", NAMES)
    puts = [Path(request).name for request in object_store.asked if request.startswith("PUT")]
    assert [name for name in puts if name.endswith(".lance")] == ["a.lance", "b.lance"]
    assert (files(bucket("x")), verify(root_of(bucket("x"))).damages) == (wanted, ())


def test_a_flipped_byte_is_refused_by_who_reads_it(bucket: Bucket, elsewhere: Any) -> None:
    snapshot = write(bucket("x"), "input", NAMES)
    path = next(iter(root_of(bucket("x")).glob("tables/*/data/b.lance")))
    path.put(path.read_bytes()[:-1] + b"?", path.stated(), absent=False)  # type: ignore[attr-defined]
    elsewhere()

    with pytest.raises(TableDamaged, match=r"data/b\.lance has another checksum .* verify moves"):
        read(bucket("x"), snapshot)


def test_a_store_without_conditional_put_is_refused_before_any_work(
    bucket: Bucket, object_store: Any
) -> None:
    object_store.conditional = False

    def never() -> Iterator[pa.RecordBatch]:
        raise AssertionError("rows were made for a store that cannot keep them")
        yield

    with pytest.raises(ValueError, match=r"root: s3://.* ignores If-None-Match"):
        folder(bucket("x")).write_shard("a", never())

    assert not list(root_of(bucket("x")).glob("tables/**/*"))
