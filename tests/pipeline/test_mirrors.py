"""Files of a bucket come near once, whole, and go when room is needed and nobody reads them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.batches import TableRows
from pipeline.mirrors import limit_bytes, make_room, mirrored
from pipeline.roots import near, root_of
from pipeline.snapshots import Snapshot
from pipeline.tables import read
from tests.pipeline.bucket_writer import write

Bucket = Callable[[str], str]
NAMES = ("a", "b", "c")


@pytest.fixture
def far_away(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """A table that another machine wrote."""
    snapshot = write(bucket("x"), "input", NAMES)
    monkeypatch.setenv("LIGHTGEN_CACHE", str(tmp_path / "elsewhere"))
    return snapshot


def here(root: str) -> list[str]:
    return sorted(path.stem for path in near(root_of(root)).glob("tables/*/data/*.lance"))


def test_a_file_comes_once(bucket: Bucket, far_away: Snapshot, object_store: Any) -> None:
    read(bucket("x"), far_away, shards=["b"])
    object_store.asked.clear()

    read(bucket("x"), far_away, ["number"], ["b"])

    assert here(bucket("x")) == ["b"]
    assert not [request for request in object_store.asked if "/data/" in request]


def test_the_shard_read_longest_ago_goes_first(
    bucket: Bucket, far_away: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(bucket("x"), far_away)
    for age, name in enumerate(("b", "c", "a")):
        path = next(near(root_of(bucket("x"))).glob(f"tables/*/data/{name}.lance"))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    monkeypatch.setenv("LIGHTGEN_CACHE_GIB", str(2.5 * far_away.shards[0].size / 2**30))

    make_room(0)

    assert here(bucket("x")) == ["b", "c"]


def test_a_file_that_is_being_read_stays(
    bucket: Bucket, far_away: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGEN_CACHE_GIB", "0")

    with mirrored(root_of(bucket("x")), far_away, far_away.shards[:2]):
        make_room(0)
        held = here(bucket("x"))
    make_room(0)

    assert (held, here(bucket("x"))) == (["a", "b"], [])


def test_a_file_that_is_not_what_the_version_names_comes_again(
    bucket: Bucket, far_away: Snapshot
) -> None:
    whole = read(bucket("x"), far_away)
    path = next(near(root_of(bucket("x"))).glob("tables/*/data/b.lance"))
    path.write_bytes(path.read_bytes()[::-1])

    assert read(bucket("x"), far_away) == whole


def test_a_limit_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTGEN_CACHE_GIB", "lots")

    with pytest.raises(ValueError, match=r"LIGHTGEN_CACHE_GIB: 'lots'; a number of GiB"):
        limit_bytes()


def test_rows_for_a_training_come_near_where_they_fit_and_are_taken_there_where_not(
    bucket: Bucket, far_away: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([90, 3, 41])
    there = root_of(bucket("x"))
    monkeypatch.setenv("LIGHTGEN_CACHE_GIB", "0")
    small = TableRows.open(there, far_away, ["number"], 0)
    from_bucket, held = small.take(rows), here(bucket("x"))
    monkeypatch.delenv("LIGHTGEN_CACHE_GIB")

    large = TableRows.open(there, far_away, ["number"], 0)

    assert (held, here(bucket("x"))) == ([], ["a", "b", "c"])
    assert (small.root, large.root) == (there, near(there))
    assert large.take(rows) == from_bucket
    assert from_bucket["number"].to_pylist() == [10, 3, 1]
