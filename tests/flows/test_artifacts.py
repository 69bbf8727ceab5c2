"""The words and numbers of a stage's artifacts."""

import pytest

from flows import artifacts
from flows.artifacts import Progress, counts
from pipeline.description import Description, Timing


def test_the_counts_add_up_and_say_why() -> None:
    description = Description("images", "Images", 10, 7, 3, {"blank": 1, "too dark": 2})
    rows = {row["rows"]: row["number"] for row in counts(description, Timing(4, 6, 2.0))}
    assert rows["in"] == "10"
    assert (rows["kept"], rows["rejected"]) == ("7", "3")
    assert (rows["rejected: blank"], rows["rejected: too dark"]) == ("1", "2")
    assert (rows["made in this run"], rows["reused"]) == ("4", "6")
    assert rows["made a second"] == "2.0"


def test_a_reused_stage_has_no_rate() -> None:
    description = Description("images", "Images", 10, 10, 0)
    rows = {row["rows"]: row["number"] for row in counts(description, Timing(0, 10, 0.2))}
    assert rows["made a second"] == "-"


def test_progress_counts_from_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 1.0])
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(clock))
    progress = Progress("key", 1000, "steps")
    progress(500)  # a resumed training starts here
    assert progress.sentence(600, next(clock), "loss 1") == (
        "600 of 1,000 steps, 200.0/s, 2 s left, loss 1"
    )
