"""Evaluation: the same prompts and seeds for every checkpoint, scores from the table alone."""

import pytest

from pipeline import alignment, evaluation, preferences
from pipeline.evaluation import scores, summarise
from pipeline.tables import Manifest, read


@pytest.fixture
def above(debug_run, walk, train):
    config = debug_run()
    upstream = walk(config)
    return config, {**upstream, "student": train(config, upstream)}


@pytest.fixture
def aligned(above, make, train):
    config, upstream = above
    upstream["preferences"], _ = make(preferences, config, upstream)
    return config, {**upstream, "dpo": train(config, upstream, alignment)}


def rows_of(config, manifest: Manifest, columns=None):
    return read(config.root, manifest.snapshots["evaluate"], columns)


def test_every_checkpoint_draws_the_same_prompts_and_seeds(aligned, make):
    config, upstream = aligned
    manifest, _ = make(evaluation, config, upstream)
    table = rows_of(config, manifest)
    assert table["checkpoint"].unique().to_pylist() == ["untrained", "student", "aligned"]
    asked = ["task", "prompt_index", "prompt", "image_index", "seed"]
    third = len(table) // 3
    parts = [table.slice(number * third, third).select(asked) for number in range(3)]
    assert parts[0].equals(parts[1])
    assert parts[1].equals(parts[2])
    assert len(set(parts[0]["seed"].to_pylist())) == third
    assert all(
        row["correct"] == (row["reason"] == "")
        for row in table.select(["correct", "reason"]).to_pylist()
    )


def test_checkpoints_are_in_the_order_of_training_however_a_manifest_lists_them(aligned):
    _, upstream = aligned
    names = ["untrained", "student", "aligned"]
    assert [name for _, name in evaluation.checkpoints(upstream)] == names
    listed = dict(sorted(upstream["student"].checkpoints.items()))
    other = {**upstream, "student": Manifest("student", "0" * 64, {}, listed)}
    assert [name for _, name in evaluation.checkpoints(dict(sorted(other.items())))] == names


def test_a_new_aligned_checkpoint_redraws_only_itself(aligned, make):
    config, upstream = aligned
    first, made = make(evaluation, config, upstream)
    assert len(made) == 3
    assert evaluation.find(config, upstream) == first
    assert make(evaluation, config, upstream) == (first, [])
    other = upstream | {"dpo": Manifest("dpo", "0" * 64, {}, upstream["dpo"].checkpoints)}
    second, made = make(evaluation, config, other)
    assert len(made) == 1
    old, new = (manifest.snapshots["evaluate"] for manifest in (first, second))
    assert old.shards[:2] == new.shards[:2]
    assert (old.table, old.version, new.version) == (new.table, 1, 2)


def test_a_student_alone_is_measured_too(above, make):
    config, upstream = above
    manifest, _ = make(evaluation, config, upstream)
    assert list(scores(config, manifest)) == ["untrained", "student"]
    seen = evaluation.describe(config, upstream, manifest)
    assert seen.pictures[0].jpeg[:2] == b"\xff\xd8"


def test_the_description_says_what_the_table_holds(aligned, make):
    config, upstream = aligned
    manifest, _ = make(evaluation, config, upstream)
    seen = evaluation.describe(config, upstream, manifest)
    correct = rows_of(config, manifest, ["correct"])["correct"].to_pylist()
    assert (seen.rows_in, seen.kept) == (len(correct), sum(correct))
    assert sum(seen.reasons.values()) == len(correct) - sum(correct)
    assert seen.tables[0].header == ("task", "untrained", "student", "aligned", "difference")
    assert len(seen.tables[0].rows) == 7  # six tasks and their mean
    assert [grid.title.partition(":")[0] for grid in seen.tables[:6]] == [
        "Share of correct pictures, with 95 % intervals",
        "aligned against student",
        "aligned against untrained",
        "Right, and no object too many, with 95 % intervals",
        "Right, and no object too many",
        "Right, and no object too many",
    ]
    assert len(seen.pictures) == 1 + 6  # before and after, and a sheet a task
    assert b"<svg" in seen.plots[0].svg
    assert scores(config, manifest) == summarise(rows_of(config, manifest))


def test_every_row_says_what_judged_it_and_why_it_is_wrong(above, make):
    config, upstream = above
    manifest, _ = make(evaluation, config, upstream)
    rows = rows_of(config, manifest, ["correct", "reason", "words", "judge", "details"]).to_pylist()
    assert {row["judge"] for row in rows} == {"shapes detector 1"}
    assert all(bool(row["words"]) for row in rows if not row["correct"])
    assert {row["details"] for row in rows} == {""}


def test_a_later_checkpoint_is_compared_with_those_measured_before(aligned, make):
    config, upstream = aligned
    make(evaluation, config, upstream)
    other = upstream | {"dpo": Manifest("dpo", "0" * 64, {}, upstream["dpo"].checkpoints)}
    manifest, _ = make(evaluation, config, other)
    seen = evaluation.describe(config, other, manifest)
    (earlier,) = [grid for grid in seen.tables if grid.title == "Measured earlier in this run"]
    assert [row[:3] for row in earlier.rows] == [("1", "aligned", "shapes")]
    assert float(earlier.rows[0][4]) == 0.0  # the same weights under another name
    assert earlier.rows[0][5] == "1.0000"
