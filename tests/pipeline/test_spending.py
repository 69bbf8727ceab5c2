"""Seconds are charged to what was made in them, survive a kill and are never counted twice."""

from pathlib import Path

import pytest

from pipeline.config import load_run
from pipeline.spending import Meter, append, device_seconds, devices_of, lines, path_of, shard_name
from pipeline.tables import Manifest, Shard, Snapshot

SHARDS = tuple(Shard(name, 5, "s", 1, "images-1") for name in ("a", "b"))


def manifest(*shards: Shard, content: str = "whole") -> Manifest:
    table = Snapshot("images-1", 1, "i", "c", 10, shards)
    return Manifest("images", content, {"images": table})


def meter(root: Path, *times: float, devices: int = 1) -> Meter:
    return Meter(root, "images", devices, iter(times).__next__)


def test_time_goes_to_what_was_made_in_it(tmp_path: Path) -> None:
    clock = meter(tmp_path, 10, 13, 18, 18.5, devices=2)
    for shard in SHARDS:
        clock.charge([shard_name(shard)])
    clock.charge(["whole"])
    assert device_seconds(tmp_path, manifest(*SHARDS)) == 2 * 8.5
    assert device_seconds(tmp_path, manifest(SHARDS[0], content="other")) == 2 * 3


def test_a_shard_made_twice_cost_twice_and_a_reused_one_nothing_more(tmp_path: Path) -> None:
    meter(tmp_path, 0, 4).charge([shard_name(SHARDS[0])])
    meter(tmp_path, 0, 1).charge([shard_name(SHARDS[1])])
    before = device_seconds(tmp_path, manifest(*SHARDS))
    meter(tmp_path, 0)  # a run that makes nothing
    assert device_seconds(tmp_path, manifest(*SHARDS)) == before == 5
    meter(tmp_path, 0, 4).charge([shard_name(SHARDS[0])])  # its file was damaged
    assert device_seconds(tmp_path, manifest(*SHARDS)) == 9


def test_a_checkpoint_costs_all_attempts_at_it(tmp_path: Path) -> None:
    made = Manifest("images", "w", {}, {"student": "checkpoints/student-1/final"})
    for seconds in (5, 7):  # killed, and gone on
        meter(tmp_path, 0, seconds).charge(["checkpoints/student-1"])
    assert device_seconds(tmp_path, made) == 12


def test_what_was_never_written_down_is_not_known(tmp_path: Path) -> None:
    assert device_seconds(tmp_path, manifest(*SHARDS)) is None
    meter(tmp_path, 0, 1).charge(["images-2/a"])
    assert device_seconds(tmp_path, manifest(*SHARDS)) is None


@pytest.mark.parametrize("torn", [b"{", b'{"what": ["a"], "sec', b"\xff\xfe", b"[1]\n"])
def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path, torn: bytes) -> None:
    path = path_of(tmp_path, "images")
    append(path, {"what": ["a"], "seconds": 1, "devices": 1})
    path.write_bytes(path.read_bytes() + torn)
    append(path, {"what": ["b"], "seconds": 2, "devices": 1})
    assert [line["what"] for line in lines(path)] == [["a"], ["b"]]


def test_devices_are_those_of_processes_and_servers() -> None:
    run = load_run("full")
    stages = ("images", "verdicts", "student", "dpo")
    assert [devices_of(run, stage) for stage in stages] == [1, 2, 8, 8]
    assert devices_of(load_run("tiny"), "verdicts") == 1


def test_a_shard_made_elsewhere_costs_what_it_took_there(tmp_path: Path) -> None:
    clock = meter(tmp_path, 10, 14, 15, 15.5)
    for shard, seconds in zip(SHARDS, (3.0, 4.0), strict=True):  # side by side, for 5 seconds
        clock.add([shard_name(shard)], seconds)
    clock.charge(["whole"])
    assert device_seconds(tmp_path, manifest(*SHARDS)) == 3 + 4 + 0.5
