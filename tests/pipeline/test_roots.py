"""Roots in a bucket: a whole run there is the run in a folder, byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightgen_model import checkpoint
from pipeline import leases, preflight, student
from pipeline.drawing import checkpoint_folder
from pipeline.pretraining import train_student
from pipeline.retention import retain
from pipeline.roots import far, near, root_of
from pipeline.seals import sha256_of
from pipeline.snapshots import Manifest
from pipeline.verification import verify
from tests.pipeline.conftest import run_whole

FILES = ("tables/*/data/*", "tables/*/sums/*", "checkpoints/*/final/*", "descriptions/*/*")


def sums(root: Path, pattern: str) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): sha256_of(path)
        for path in root.glob(pattern)
        if path.is_file()
    }


def test_a_whole_run_in_a_bucket_leaves_the_bytes_of_one_in_a_folder(whole_root, debug_run, bucket):
    config = debug_run(root=bucket("runs/whole"))

    manifests, _ = run_whole(config)

    root = root_of(config.root)
    for pattern in (
        "tables/*/data/*",
        "tables/*/sums/*",
        "checkpoints/*/final/*",
        "descriptions/*/*",
    ):
        assert sums(root, pattern) == sums(whole_root, pattern)
    assert run_whole(config) == (manifests, {})


def test_a_lost_training_goes_on_elsewhere_from_what_the_bucket_has(
    debug_run: Any, walk: Any, bucket: Any, elsewhere: Callable[[str], None]
) -> None:
    changes = {"phases.0.steps": 6, "checkpoint_every": 2, "keep_last": 2}
    changes = {f"student.{name}": value for name, value in changes.items()}
    whole, config = debug_run(changes), debug_run(changes, root=bucket("x"))
    upstream = walk(whole)
    assert walk(config) == upstream
    train_student(whole, upstream)
    train_student(config, upstream)
    kept, here = (student.folder(each, upstream).kept for each in (config, whole))
    wanted = sums(here, "**/*.[ps][ta]*")  # weights and states: a log also says how fast it was
    assert sums(kept, "**/*.[ps][ta]*") == wanted
    for path in [kept / "manifest.json", *kept.glob("final/*"), *kept.rglob("state-*6.*")]:
        path.unlink()
    (newest,) = kept.rglob("state-*.pt")
    elsewhere("another machine")

    train_student(config, upstream)

    assert newest.name == "state-000000004.pt"
    final = {name: total for name, total in wanted.items() if name.startswith("final/")}
    assert sums(kept, "final/*.safetensors") == final
    assert student.find(config, upstream) == student.find(whole, upstream)


def test_a_checkpoint_is_read_where_it_was_not_trained_unless_it_is_damaged(
    debug_run: Any, train: Any, bucket: Any, elsewhere: Callable[[str], None]
) -> None:
    config = debug_run(root=bucket("x"))
    run_whole(config, "captions")
    upstream = {"features": Manifest("features", "of a test")}
    manifest = train(config, upstream)
    elsewhere("another machine")
    folder = checkpoint_folder(config, manifest, student.CHECKPOINT)
    weights = student.folder(config, upstream).kept / "final" / "model.safetensors"
    weights.put(weights.read_bytes()[:-1] + b"?", weights.stated(), absent=False)
    elsewhere("a third machine")

    with pytest.raises(ValueError, match="has another checksum than when it was written"):
        checkpoint_folder(config, manifest, student.CHECKPOINT)
    (damage,) = verify(root_of(config.root)).damages

    assert checkpoint.load(folder).config == config.student.model.drawn
    assert root_of(config.root) / damage.place == weights
    assert student.find(config, upstream) is None
    assert train(config, upstream) == manifest


def test_a_record_does_not_lead_out_of_what_is_near(bucket: Any) -> None:
    with pytest.raises(ValueError, match="the record that names it is not ours"):
        near(root_of(bucket("x")) / "checkpoints" / ".." / ".." / "elsewhere")


def test_what_is_near_knows_what_it_stands_for(bucket: Any) -> None:
    place = root_of(bucket("x")) / "checkpoints" / "a" / "log.jsonl"

    assert far(near(place)) == place
    assert near(Path("artifacts/tiny")) == Path("artifacts/tiny")
    assert far(Path("artifacts/tiny")) is None


def test_a_lease_in_a_bucket_is_believed_until_it_is_taken_back(bucket: Any) -> None:
    root = root_of(bucket("x"))

    with leases.leased(root, "images", "debug", ["tables/a.lance"]):
        (held,) = leases.living(root)

    assert held.holds("tables/a.lance/data/x.lance")
    assert leases.living(root) == []


def test_retention_in_a_bucket_removes_what_nobody_names(
    debug_run: Any, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = debug_run({"captions.sources.0.num_captions": 12}, root=bucket("x"))
    other = debug_run({"captions.sources.0.num_captions": 9}, root=bucket("x"))
    run_whole(other, "captions")
    manifests, _ = run_whole(config, "captions")
    root, before = root_of(config.root), sums(root_of(config.root), "**/*")

    listed = retain(root, keep=1)
    removed = retain(root, keep=1, remove=True, min_age_hours=0)

    assert listed.going == ()  # written just now
    assert removed.going
    assert set(sums(root, "**/*")) < set(before)
    assert verify(root).damages == ()
    assert run_whole(config, "captions") == (manifests, {})


def test_a_root_that_cannot_hold_a_run_is_refused_before_any_work(
    debug_run: Any, bucket: Any, object_store: Any
) -> None:
    object_store.conditional = False

    with pytest.raises(OSError, match=r"root: s3://.* ignores If-None-Match"):
        preflight.check_root(debug_run(root=bucket("x")))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Called, the test goes on as another machine, which has nothing near."""
    return lambda name: monkeypatch.setenv("LIGHTGEN_CACHE", str(tmp_path / name))
