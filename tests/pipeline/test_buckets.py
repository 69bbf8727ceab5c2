"""A bucket answers as a folder does, and what it cannot do is refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.buckets import SCHEME, BucketPath, StoreRefused, check_root, refusal, settings

Bucket = Callable[[str], str]
TREE = (
    "tables/a-1.lance/data/x.lance",
    "tables/a-1.lance/sums/x.json",
    "tables/b-2.lance/data/y.lance",
    "tables/b-2.lance/_versions/9.manifest",
    "snapshots/a-1-in.json",
    "ledger/one.json",
    "ledger/copies/one.json",
)
PATTERNS = (
    "*",
    "tables/*.lance",
    "tables/*/data/*.lance",
    "tables/*.lance/sums/*.json",
    "ledger/**/*.json",
    "snapshots/a-*.json",
    "nothing/*",
    "**/?.lance",
)


def test_a_path_keeps_its_bucket_through_all_that_is_derived() -> None:
    root = BucketPath("s3://bucket/some/prefix/")
    place = root / "tables" / "x.lance"

    assert str(place) == "s3://bucket/some/prefix/tables/x.lance"
    assert (place.bucket, place.key) == ("bucket", "some/prefix/tables/x.lance")
    assert place.relative_to(root).as_posix() == "tables/x.lance"
    assert place.parent.parent == root
    assert {place, BucketPath(str(place))} == {place}


def test_what_a_bucket_cannot_do_is_refused_not_done_on_the_disk(tmp_path: Path) -> None:
    place = BucketPath("s3://bucket/prefix")

    for wrong in (lambda: os.listdir(place), place.touch, lambda: place.hardlink_to(tmp_path)):
        with pytest.raises(TypeError, match="s3://bucket/prefix is in a bucket"):
            wrong()


@pytest.mark.parametrize("root", ["artifacts/tiny", "/data/x", "s3://bucket", "s3://b/c/d/"])
def test_a_folder_and_a_bucket_are_roots(root: str) -> None:
    assert check_root(root) == root


@pytest.mark.parametrize(
    "root", ["s3://", "s3:///x", "s3:/b/x", "s3://b//x", "s3://b/../x", "gs://b/x", "s3+ddb://b/x"]
)
def test_other_roots_are_refused_with_what_is_allowed(root: str, debug_run: Any) -> None:
    with pytest.raises(ValueError, match=r"a folder and s3://bucket/prefix"):
        debug_run({"root": root})


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_find_what_they_find_in_a_folder(
    pattern: str, bucket: Bucket, tmp_path: Path
) -> None:
    roots = BucketPath(bucket("tree")), tmp_path / "tree"
    for root in roots:
        for name in TREE:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)

    there, here = [{p.relative_to(root).as_posix() for p in root.glob(pattern)} for root in roots]

    assert there == here


def test_files_and_folders_tell_what_they_are(bucket: Bucket) -> None:
    root = BucketPath(bucket("tree"))
    (root / "a" / "b.txt").write_text("hello")

    def told(path: Path) -> tuple[bool, bool, bool]:
        return path.exists(), path.is_dir(), path.is_file()

    assert told(root / "a") == (True, True, False)
    assert told(root / "a" / "b.txt") == (True, False, True)
    assert told(root / "a" / "b") == told(root / "a" / "b.tx") == (False, False, False)
    assert (root / "a" / "b.txt").stat().st_size == 5
    assert [path.read_text() for path in (root / "a").iterdir()] == ["hello"]
    with pytest.raises(FileNotFoundError, match=r"a/none is not there"):
        (root / "a" / "none").read_bytes()


def test_a_folder_is_moved_with_all_that_its_objects_say(bucket: Bucket) -> None:
    root = BucketPath(bucket("tree"))
    for name in ("a/1", "a/b/2"):
        (root / name).write_text(name)
    said = (root / "a/b/2").stated()

    (root / "a").rename(root / "quarantine" / "a")

    assert not (root / "a").exists()
    assert (root / "quarantine" / "a" / "b" / "2").stated() == said


def test_only_the_first_of_two_puts_where_nothing_lies(bucket: Bucket, tmp_path: Path) -> None:
    place, file = BucketPath(bucket("x")), tmp_path / "file"
    file.write_bytes(b"first")

    assert place.send(file, "a sum", 7, absent=True)
    assert not place.put(b"second", {}, absent=True)

    assert place.read_bytes() == b"first"
    assert {"sha256": "a sum", "rows": "7"}.items() <= place.stated().items()


def test_a_store_that_keeps_its_word_is_taken_and_nothing_is_left_of_the_trial(
    bucket: Bucket,
) -> None:
    root = BucketPath(bucket("x"))

    assert (refusal(root), list(root.rglob("*"))) == ("", [])


def test_refusals_name_what_is_wrong(
    bucket: Bucket, object_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.conditional = False
    assert "ignores If-None-Match" in refusal(BucketPath(bucket("x")))
    assert "there is no bucket not-there" in refusal(BucketPath(f"{SCHEME}not-there/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "127.0.0.1:1" in refusal(BucketPath(bucket("x")))
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "say AWS_ALLOW_HTTP=true" in refusal(BucketPath(bucket("x")))


def test_an_endpoint_without_its_scheme_is_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")

    with pytest.raises(ValueError, match=r"AWS_ENDPOINT_URL: '127.0.0.1:9000'; allowed is https"):
        BucketPath(bucket("x")).read_bytes()


def test_an_empty_variable_is_one_that_is_not_given(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", "")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")

    assert refusal(BucketPath(bucket("empty"))) == ""


def test_no_secret_is_in_what_is_said_of_a_store(
    bucket: Bucket, object_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = BucketPath(bucket("x"))
    object_store.forbidden = True

    with pytest.raises(StoreRefused, match=r"403") as refused:
        root.read_bytes()

    said = f"{settings()} {refused.value!r} {root!r} {refusal(root)}"
    assert "403" in said
    assert "planted-secret" not in said
