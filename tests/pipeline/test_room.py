"""Bytes before they are written, against those of the tiny run that was measured."""

from pathlib import Path

import pytest

from pipeline.config import RunConfig, load_run
from pipeline.expected import Counted, expected
from pipeline.room import bytes_on_disk, expected_bytes, student_bytes
from pipeline.tables import Manifest, Shard, Snapshot

# Of one uninterrupted `make distill`, MB of data files and of the trainings' folders.
MEASURED = {
    "captions": 1.112,
    "images": 10.710,
    "features": 24.868 + 62.917 + 29.283,
    "student": 384.739,
    "preferences": 44.851 + 22.245,
    "dpo": 128.122,
    "evaluate": 25.296,
}
MADE = {"captions": Counted(12_000, 8_443), "verdicts": Counted(18_886, 16_982)}


def test_the_tiny_run_takes_what_was_measured(measured_tiny: RunConfig) -> None:
    given = expected_bytes(measured_tiny, expected(measured_tiny, MADE))
    megabytes = {stage: (given[stage] or 0) / 1e6 for stage in MEASURED}
    assert megabytes == pytest.approx(MEASURED, rel=0.12)


def test_states_of_the_full_run_by_hand() -> None:
    """792.2 M weights: one untrained and two final copies; of a phase the two newest states of 16
    bytes a weight stay, and each 20,000th step's: 6 of 100,000 steps, 2 of 10,000."""
    weights = 792_244_352
    assert student_bytes(load_run("full")) == weights * (12 + 16 * (6 + 2))


def test_what_is_on_disk_is_data_files_and_the_folder_of_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "student-1"
    (folder / "final").mkdir(parents=True)
    (folder / "final" / "model.safetensors").write_bytes(b"x" * 70)
    (folder / "state-000000002.pt").write_bytes(b"x" * 30)
    student = Manifest("student", "c", {}, {"student": "checkpoints/student-1/final"})
    assert bytes_on_disk(tmp_path, student) == 100
    shards = (Shard("a", 1, "s", 11, "t"), Shard("b", 1, "s", 12, "t"))
    table = Manifest("images", "c", {"images": Snapshot("t", 1, "i", "c", 2, shards)})
    assert bytes_on_disk(tmp_path, table) == 23


def test_rows_that_are_not_known_have_no_bytes() -> None:
    config = load_run("real", {"plan.source_rows": {}})
    assert expected_bytes(config, expected(config)) == {"captions": None}
