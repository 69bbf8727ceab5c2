"""Retention: lists what nobody names, removes it when asked to, and nothing that is needed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.ledger import entries
from pipeline.retention import markdown, retain
from pipeline.verification import verify
from tests.pipeline.conftest import run_whole

OTHER = {"verdicts.min_alignment": 0.9, "images.max_captions": {128: 5}}


def grown_old(root: Path, hours: float = 30) -> None:
    then = time.time() - hours * 3600
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def kinds(plan) -> set[str]:
    return {item.kind for item in plan.going}


def snapshot_of(root: Path) -> set[Path]:
    skipped = {".gate"}
    return {path for path in root.rglob("*") if path.is_file() and path.name not in skipped}


def test_a_root_with_one_run_has_nothing_to_remove(whole):
    root = Path(whole.root)
    grown_old(root)
    assert retain(root, config=whole).going == ()


def test_dry_is_the_default_and_changes_nothing(whole, debug_run):
    root = Path(whole.root)
    run_whole(debug_run(OTHER), "features")
    run_whole(whole)  # asked for last
    grown_old(root)
    before = snapshot_of(root)
    plan = retain(root, keep=1)
    assert {"record", "version", "shard"} <= kinds(plan)
    assert "nothing was removed" in markdown(plan)
    assert snapshot_of(root) == before


def test_what_no_kept_record_names_goes_and_the_rest_is_whole(whole, debug_run):
    root, before = Path(whole.root), {entry.name for entry in entries(Path(whole.root))}
    other = debug_run(OTHER)
    run_whole(other, "features")
    run_whole(whole)  # asked for last
    grown_old(root)
    assert retain(root, keep=1, config=whole, remove=True).going
    assert {entry.name for entry in entries(root)} == before
    assert verify(root).damages == ()
    assert run_whole(whole)[1] == {}
    assert set(run_whole(other, "features")[1]) == {"images", "verdicts", "features"}
    assert verify(root).damages == ()


def test_above_a_kept_record_stands_a_kept_one_however_old(whole, debug_run):
    """The evaluation is the newest of its stage: what it came from is kept with it."""
    root = Path(whole.root)
    run_whole(debug_run(OTHER), "features")
    grown_old(root)
    assert retain(root, keep=1).going == ()


def test_a_removed_record_takes_its_tables_and_another_run_makes_them_again(whole, debug_run):
    root = Path(whole.root)
    other = debug_run({"images.teacher.error_rate": 0.6})
    run_whole(other, "images")
    (newest,) = [e for e in entries(root) if e.stage == "images"][-1:]
    for path in (root / "ledger").rglob(f"{newest.name}.json"):
        path.unlink()
    grown_old(root)
    plan = retain(root, remove=True)
    assert {item.kind for item in plan.going} == {"table", "description"}
    assert not (root / "tables" / f"{newest.tables['images'].table}.lance").exists()
    assert verify(root).damages == ()
    assert run_whole(whole)[1] == {}
    assert set(run_whole(other, "images")[1]) == {"images"}


def test_states_of_finished_trainings_go_and_those_of_others_stay(whole):
    root = Path(whole.root)
    finished = next((root / "checkpoints").glob("student-*"))
    unfinished = root / "checkpoints" / "student-0000000000000000"
    unfinished.mkdir()
    for folder in (finished, unfinished):
        (folder / "state-000000100.pt").write_bytes(b"state")
    grown_old(root, hours=30)
    assert kinds(retain(root, remove=True)) == {"state"}
    assert unfinished.exists()
    grown_old(root, hours=200)
    assert kinds(retain(root, remove=True)) == {"unfinished training"}
    assert not unfinished.exists()
    assert not (finished / "state-000000100.pt").exists()
    assert (finished / "final" / "model.safetensors").exists()


def test_leftovers_older_than_a_day_are_swept_and_fresh_ones_spared(whole):
    root = Path(whole.root)
    data = next((root / "tables").glob("images-*")) / "data"
    old, new = data / ".tmpAbC", root / "checkpoints" / ".state-000000001.pt.part"
    shard, growing = (data / f".{name}.part" / "rows.part" for name in ("shard.1", "shard.2"))
    for path in (old, new, shard, growing):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    grown_old(root)
    for path in (new, growing):
        os.utime(path)
    plan = retain(root, remove=True)
    gone = (shard.parent, old)
    assert [item.place for item in plan.going] == [str(path.relative_to(root)) for path in gone]
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in (new, growing))


def test_what_a_living_process_holds_stays_until_it_dies(whole):
    root = Path(whole.root)
    held = root / "tables" / "images-0000000000000000.lance" / "data"
    held.mkdir(parents=True)
    (held / "shard.lance").write_bytes(b"rows")
    grown_old(root, hours=200)
    code = (
        "import sys, time; from pathlib import Path; from pipeline.leases import leased\n"
        "with leased(Path(sys.argv[1]), 'images', 'debug', sys.argv[2:]):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    words = [sys.executable, "-c", code, str(root), "tables/images-0000000000000000.lance"]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."})
    assert holder.stdout is not None
    assert holder.stdout.readline()
    plan = retain(root, remove=True)
    assert plan.going == ()
    assert f"held by images/debug (process {holder.pid}" in plan.items[0].spared
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    grown_old(root, hours=200)
    assert kinds(retain(root, remove=True)) == {"unfinished table", "lease"}
    assert not held.exists()


def test_an_interrupted_stage_of_the_run_stays(whole, debug_run):
    """Its shards wait for their commit: nobody names them, the run's values lead to them."""
    from pipeline import captions, images

    root = Path(whole.root)
    other = debug_run({"images.teacher.error_rate": 0.6})
    upstream = {"captions": captions.find(other, {})}
    work = images.plan(other, upstream)[0]
    (shard,) = images.make(other, upstream, work, lambda rows: None)
    grown_old(root, hours=200)
    plan = retain(root, config=other, remove=True)
    assert plan.going == ()
    assert "an interrupted stage goes on" in plan.items[0].spared
    assert kinds(retain(root, remove=True)) == {"unfinished table"}
    assert not (root / f"tables/{shard.table}.lance").exists()


def test_what_a_lost_record_named_is_not_taken_for_unnamed(whole):
    root = Path(whole.root)
    (lost,) = [entry.name for entry in entries(root) if entry.stage == "dpo"]
    for path in (root / "ledger").rglob(f"{lost}.json"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"damaged, such as {lost}"):
        retain(root)
    verify(root)
    with pytest.raises(ValueError, match=f"damaged, such as {lost}"):
        retain(root)
    run_whole(whole)
    grown_old(root)
    assert kinds(retain(root, config=whole)) == {"quarantine"}


def test_a_root_without_a_ledger_and_no_records_to_keep_are_refused(tmp_path, whole):
    with pytest.raises(ValueError, match="has no ledger"):
        retain(tmp_path)
    with pytest.raises(ValueError, match="keep: 0 records"):
        retain(Path(whole.root), keep=0)
