"""Two runs compared: where they part, by which value, and what came of it."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.comparison import (
    Comparison,
    bars,
    compare,
    markdown,
    newest_two,
    scores_grid,
    side_of,
)
from pipeline.ledger import newest
from tests.pipeline.conftest import run_whole


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {stage.stage: stage.verdict for stage in comparison.stages}


def test_a_run_is_the_same_as_itself(whole):
    side = side_of(whole.root)
    found = compare(side, side)
    assert found.cause == "Every stage left the same."
    assert set(verdicts(found).values()) == {"the same"}
    assert len(found.stages) == 8


def test_another_threshold_is_named_with_what_it_changed_in_counts(whole, debug_run):
    root = Path(whole.root)
    before = newest(root, stage="features").name
    run_whole(debug_run({"verdicts.min_alignment": 0.1}), "features")
    found = compare(side_of(f"{root}:{before}"), side_of(str(root)))
    assert "first differ at verdicts (other values: verdicts.min_alignment 0.5 against 0.1)" in (
        found.cause
    )
    assert verdicts(found) == {
        "captions": "the same",
        "images": "the same",
        "verdicts": "other values",
        "features": "other inputs",
    }
    (kept,) = [c for s in found.stages if s.stage == "verdicts" for c in s.counts][:1]
    assert kept.place == "kept"
    assert int(kept.first) < int(kept.second)
    assert "Counts of verdicts" in markdown(found)


def test_a_stage_that_only_one_has_is_told(whole):
    root = Path(whole.root)
    short = side_of(f"{root}:{newest(root, stage='features').name}")
    found = compare(short, side_of(str(root)))
    assert verdicts(found)["evaluate"] == "in one only"
    assert "first differ at student" in found.cause


def test_values_without_effect_and_other_code_are_told_apart(whole, debug_run):
    root = Path(whole.root)
    run_whole(debug_run({"student.log_every": 3}), "student")
    found = compare(*newest_two(root))
    assert verdicts(found)["student"] == "other values, the same result"
    one = side_of(str(root))
    last = one.last
    other = replace(last, manifest=replace(last.manifest, content="x"), maker={"code": "new"})
    changed = compare(one, replace(one, entries={**one.entries, last.stage: other}))
    assert verdicts(changed)[last.stage] == "other code"


def test_roots_are_compared_too(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "other")
    found = compare(side_of(whole.root), side_of(str(tmp_path / "other")))
    assert found.cause == "Every stage left the same."


def test_scores_stand_side_by_side_by_checkpoint_and_task(whole):
    found = compare(side_of(whole.root), side_of(whole.root))
    low, high = ({"aligned": {"counting": 0.25, "mean": 0.25}}, {"aligned": {"counting": 0.75}})
    grid = scores_grid(replace(found, scores=(low, high)))
    assert grid.rows == (
        ("aligned", "counting", "0.250", "0.750", "+0.500"),
        ("aligned", "mean", "0.250", "-", "-"),
    )
    assert (bars(found) or b"").startswith(b"<svg")
    assert bars(replace(found, scores=({}, {}))) is None


def test_what_is_not_there_is_named(whole, tmp_path):
    with pytest.raises(ValueError, match="has no ledger"):
        side_of(str(tmp_path))
    with pytest.raises(ValueError, match="nothing to compare it with"):
        newest_two(Path(whole.root))


def test_the_command_prints_a_page(whole, debug_run):
    run_whole(debug_run({"dpo.beta": 7.0}), "dpo")
    words = [sys.executable, "-m", "pipeline.comparison", whole.root]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| dpo.beta | 5000.0 | 7.0 |" in done.stdout
