"""Feedback: weak tasks are asked more often, and the next round is the run with more captions."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captions import harvest
from pipeline.feedback import next_round, task_shares
from pipeline.shapes.grammar import TASKS
from pipeline.tasks import task_of

SCORES = dict(zip(TASKS, (1.0, 0.7, 0.4, 1.0, 0.2, 0.3), strict=True))


def test_shares_by_hand() -> None:
    shares = task_shares({"counting": 0.5, "colors": 1.0, "mean": 0.75}, floor=0.1)
    assert shares == {"counting": 0.9, "colors": 0.1}
    strong = task_shares({"counting": 0.5, "position": 0.0}, strength=2, floor=0)
    assert strong == {"counting": 0.2, "position": 0.8}
    assert set(task_shares(dict.fromkeys(TASKS, 1.0)).values()) == {0.1667}


@given(
    st.dictionaries(st.sampled_from(TASKS), st.floats(0, 1), min_size=1),
    st.floats(0, 4),
    st.floats(0, 1 / 6),
)
def test_shares_are_whole_and_follow_the_scores(
    scores: dict[str, float], strength: float, floor: float
) -> None:
    shares = task_shares(scores, strength=strength, floor=floor)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert min(shares.values()) >= floor - 1e-4
    by_need = sorted(scores, key=lambda task: scores[task], reverse=True)
    assert all(shares[a] <= shares[b] for a, b in pairwise(by_need))


@pytest.mark.parametrize(
    ("scores", "values", "sentence"),
    [
        ({"counting": 1.2}, {}, r"scores: \{'counting': 1.2\}; shares of correct pictures"),
        ({"mean": 0.5}, {}, "shares of correct pictures"),
        (SCORES, {"floor": 0.2}, "floor: 0.2 of each of 6 tasks"),
    ],
)
def test_what_cannot_be_shared_out_is_named(scores, values, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        task_shares(scores, **values)


@pytest.fixture
def taught(debug_run, walk, train):
    config = debug_run()
    upstream = walk(config)
    return config, {**upstream, "student": train(config, upstream)}


def test_the_next_round_adds_captions_that_ask_for_what_is_weak(
    taught, debug_run, tmp_path
) -> None:
    config, upstream = taught
    changes = next_round(config, upstream, task_shares(SCORES), 300)
    after = debug_run(changes)
    assert after.student.start == f"{config.root}/{upstream['student'].checkpoints['student']}"
    assert after.captions.sources[0] == config.captions.sources[0]
    screened = harvest(tmp_path, after.captions)
    names = screened.readings["feedback-1"].rows["caption"].to_pylist()
    asked = [task_of(name) for name in names]
    assert asked.count("position") > 3 * asked.count("single_object") > 0
    again = next_round(after, upstream, task_shares(SCORES), 300)
    assert [source["name"] for source in again["captions.sources"]][-1] == "feedback-2"
    assert len({source["seed"] for source in again["captions.sources"]}) == 3


def test_a_round_is_shown_by_the_shares_of_its_captions_unless_told_otherwise(
    taught, debug_run
) -> None:
    shares = task_shares(SCORES)
    balanced, plain = (next_round(*taught, shares, 9, balance=each) for each in (True, False))
    assert debug_run(balanced).student.task_shares == shares
    assert balanced == {**plain, "student.task_shares": shares}
    assert debug_run({**balanced, **plain}).student.task_shares == {}


def test_tasks_without_a_grammar_are_refused(taught) -> None:
    with pytest.raises(ValueError, match=r"no captions can be made for \['actions'\]"):
        next_round(*taught, {"actions": 1.0}, 10)
