"""Notes of shards that could not be made: kept until they are, never taken for whole."""

from pathlib import Path

import pytest

from pipeline import quarantine
from pipeline.description import Description
from pipeline.quarantine import REASON, Quarantined

LOST = [Quarantined("s1", 10, 3, "RuntimeError: out of luck")]


def test_a_version_without_a_shard_is_noted_until_the_shard_is_made(tmp_path: Path) -> None:
    quarantine.begin(tmp_path, "images", LOST)
    quarantine.settle(tmp_path, "images", "c" * 64, LOST)
    assert quarantine.lacking(tmp_path, "images", "c" * 64) == tuple(LOST)
    assert quarantine.lacking(tmp_path, "images", "d" * 64) == ()
    quarantine.settle(tmp_path, "images", "c" * 64, ())
    assert quarantine.lacking(tmp_path, "images", "c" * 64) == ()


def test_a_kill_before_the_note_leaves_no_version_that_looks_whole(tmp_path: Path) -> None:
    quarantine.begin(tmp_path, "images", LOST)
    assert quarantine.lacking(tmp_path, "images", "whatever was committed") == tuple(LOST)
    assert quarantine.lacking(tmp_path, "verdicts", "whatever was committed") == ()


def test_a_damaged_note_says_so(tmp_path: Path) -> None:
    quarantine.settle(tmp_path, "images", "c" * 64, LOST)
    (note,) = (tmp_path / "quarantined").iterdir()
    note.write_text(note.read_text("utf-8").replace("luck", "duck"), "utf-8")
    (said,) = quarantine.lacking(tmp_path, "images", "c" * 64)
    assert "damaged" in said.reason


def test_a_description_counts_the_rows_of_quarantined_shards_as_rejected() -> None:
    whole = Description("images", "Images", rows_in=30, kept=28, rejected=2, reasons={"blank": 2})
    shown = whole.without(LOST)
    assert (shown.rows_in, shown.kept, shown.rejected) == (40, 28, 12)
    assert shown.reasons == {"blank": 2, REASON: 10}
    assert "out of luck" in shown.markdown()
    assert whole.without(()) is whole


def test_rows_that_a_stage_counted_itself_are_not_counted_twice() -> None:
    counted = Description("verdicts", "Verdicts", 40, 28, 12, reasons={REASON: 10, "low": 2})
    assert counted.without(LOST).rows_in == 40


def test_a_reason_is_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-very-secret-value")
    error = RuntimeError("refused:\n  Bearer sk-very-secret-value " + 400 * "x")
    said = quarantine.reason_of(error)
    assert said.startswith("RuntimeError: refused: Bearer ")
    assert "sk-very-secret-value" not in said
    assert len(said) <= quarantine.MAX_WORDS


def test_a_sentence_names_the_first_shards_and_counts_the_others() -> None:
    many = [Quarantined(f"s{number}", 10, 3, "boom") for number in range(7)]
    said = quarantine.sentence("images", many)
    assert said.startswith("images: 7 shards quarantined, 70 rows: s0 (boom);")
    assert said.endswith("and 2 more")
