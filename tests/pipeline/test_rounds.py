"""A round sees a run like any other: its captions, its policy, its own lineage."""

import pytest

from pipeline import alignment, evaluation, preferences, rounds
from pipeline.already import already
from pipeline.tables import read
from pipeline.upstream import resolve, steps


@pytest.fixture
def first(debug_run, walk, make, train):
    """A run of two rounds whose first one is made, by networks of random weights."""
    config = debug_run({"dpo.rounds": 2})
    upstream = walk(config)
    upstream["student"] = train(config, upstream)
    view = rounds.at(config, 1), rounds.seen_by(upstream, 1)
    upstream["preferences"], _ = make(preferences, *view)
    upstream["dpo"] = train(view[0], rounds.seen_by(upstream, 1), alignment)
    return config, upstream


@pytest.fixture
def second(first, make, train):
    config, upstream = first
    view = rounds.at(config, 2)
    upstream["preferences-2"], _ = make(preferences, view, rounds.seen_by(upstream, 2))
    upstream["dpo-2"] = train(view, rounds.seen_by(upstream, 2), alignment)
    return config, upstream


def test_the_stages_of_a_round_follow_each_other(debug_run):
    names = [step.name for step in steps(debug_run({"dpo.rounds": 3}))]
    assert names[5:] == [
        "preferences", "dpo", "preferences-2", "dpo-2", "preferences-3", "dpo-3", "evaluate",
    ]  # fmt: skip
    assert [step.round for step in steps(debug_run())][4:] == [0, 1, 1, 0]


def test_the_first_round_is_that_of_a_run_without_others(first, debug_run):
    config, upstream = first
    alone = debug_run()
    assert rounds.at(config, 1) == alone == rounds.at(alone, 1)
    assert preferences.find(alone, upstream) == upstream["preferences"]
    assert alignment.find(alone, upstream) == upstream["dpo"]


def test_the_second_round_draws_with_the_first_ones_checkpoint(second):
    config, upstream = second
    tables = [upstream[name].snapshots["samples"] for name in ("preferences", "preferences-2")]
    samples = [read(config.root, table).to_pylist() for table in tables]
    assert {row["caption_id"] for row in samples[0]} != {row["caption_id"] for row in samples[1]}
    pairs = read(config.root, upstream["preferences-2"].snapshots["preferences"])
    origins = {row["loser_from"].rsplit(" ", 2)[0] for row in pairs.to_pylist()}
    assert origins == {"aligned"}
    seen = preferences.describe(
        rounds.at(config, 2), rounds.seen_by(upstream, 2), upstream["preferences-2"]
    )
    assert seen.facts["student's weights"] == upstream["dpo"].content
    assert rounds.named(seen, 2).stage == "preferences-2"


def test_equal_captions_every_round_where_the_run_says_so(debug_run):
    config = debug_run({"dpo.rounds": 3, "preferences.seed_per_round": 0})
    assert rounds.at(config, 3).preferences == config.preferences
    config = debug_run({"dpo.rounds": 3, "preferences.seed_per_round": 5})
    assert rounds.at(config, 3).preferences.seed == 10


def test_each_round_is_found_again_and_knows_what_it_came_from(second, debug_run):
    config, upstream = second
    found = resolve(config, "evaluate")
    assert found == upstream
    assert upstream["dpo-2"].checkpoints.keys() == {"aligned-2"}
    longer = debug_run({"dpo.rounds": 3})
    assert resolve(longer, "preferences-3") == upstream
    with pytest.raises(ValueError, match=r"preferences/debug --param round=3"):
        resolve(longer, "evaluate")
    against_student = debug_run({"dpo.rounds": 2, "dpo.reference": "student"})
    assert alignment.find(rounds.at(against_student, 1), rounds.seen_by(upstream, 1))
    assert not alignment.find(rounds.at(against_student, 2), rounds.seen_by(upstream, 2))


def test_every_rounds_checkpoint_is_measured(second, make):
    config, upstream = second
    manifest, _ = make(evaluation, config, upstream)
    shares = evaluation.scores(config, manifest)
    assert list(shares) == ["untrained", "student", "aligned", "aligned-2"]


def test_a_round_that_the_run_does_not_have_is_refused(debug_run):
    with pytest.raises(ValueError, match="round 2 of run 'debug', which has 1"):
        rounds.at(debug_run(), 2)


def test_the_plan_tells_rounds_that_are_made_from_those_to_come(first, second):
    config, _ = second
    assert already(config)["dpo"].whole
    further = of_rounds(config, 3)
    there = already(further)
    assert (there["preferences"].rows, there["preferences"].of) == (2, 3)
    assert (there["dpo"].share, there["dpo"].whole) == (pytest.approx(2 / 3), False)
    assert not there["evaluate"].rows


def of_rounds(config, count):
    """The same run with so many rounds."""
    assert config.dpo
    return config.model_copy(update={"dpo": config.dpo.model_copy(update={"rounds": count})})
