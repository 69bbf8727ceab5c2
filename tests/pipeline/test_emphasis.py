"""Emphasis: what a student is shown has the shares that were asked for, of all its captions."""

from collections import Counter

import pytest

from pipeline import student
from pipeline.config import load_run
from pipeline.emphasis import Emphasis
from pipeline.pretraining import PhaseData
from pipeline.subsets import accepted, subset_of
from pipeline.tasks import task_of

SHARES = {"position": 6.0, "counting": 3.0, "colors": 1.0, "two_object": 0.0}


def shown(config, upstream, epochs: int = 3) -> Counter[str]:
    """Tasks of the rows of some epochs of the first phase, each task's rows beside it."""
    data = PhaseData(config, upstream).batches(0, config.student.phases[0])
    captions = data.source.whole("caption_id").to_pylist()
    features, asked = upstream["features"].snapshots, upstream["captions"].snapshots["captions"]
    tasks = {
        caption_id: task_of(text)
        for caption_id, text in zip(*accepted(config.root, features["text"], asked), strict=True)
    }
    every = range(epochs * data.order.per_epoch)
    return Counter(tasks[captions[row]] for step in every for row in data.of_step(step).tolist())


def test_batches_have_the_shares_of_the_tasks(debug_run, walk) -> None:
    config = debug_run({"student.task_shares": SHARES, "student.phases.0.batch_size": 1})
    upstream = walk(config)
    found = shown(config, upstream)
    assert set(found) == {"position", "counting", "colors"}
    whole = sum(found.values())
    assert found["position"] / whole == pytest.approx(0.6, abs=0.02)
    assert found["colors"] / whole == pytest.approx(0.1, abs=0.02)
    assert shown(debug_run({"student.phases.0.batch_size": 1}), upstream)["two_object"] > 0


def test_a_subset_is_shown_by_the_shares_too(debug_run, walk) -> None:
    part = {"student.subset": {"num_captions": 20}, "student.task_shares": SHARES}
    config = debug_run(part)
    upstream = walk(config)
    data = PhaseData(config, upstream).batches(0, config.student.phases[0])
    captions = data.source.whole("caption_id").to_pylist()
    taken = {captions[row] for step in range(40) for row in data.of_step(step).tolist()}
    assert taken < subset_of(config, upstream)


def test_places_are_those_of_the_rows_and_a_task_without_any_is_named() -> None:
    tasks = {"a": "colors", "b": "counting", "c": "colors"}
    first, second = Emphasis({"counting": 1, "colors": 3}, tasks).groups(["a", "b", "c", "a"])
    assert (first.rows.tolist(), first.share) == ([1], 0.25)
    assert (second.rows.tolist(), second.share) == ([0, 2, 3], 0.75)
    with pytest.raises(ValueError, match=r"asks for \['counting'\]; there are \['colors'\]"):
        Emphasis({"counting": 1, "colors": 3}, tasks).groups(["a", "c"])


def test_a_phase_that_lacks_a_task_is_found_before_training(debug_run, walk) -> None:
    config = debug_run({"student.task_shares": {"actions": 1.0}})
    with pytest.raises(ValueError, match=r"student.task_shares: no picture .* \['actions'\]"):
        PhaseData(config, walk(config))
    with pytest.raises(ValueError, match="task_shares: all of them are 0"):
        debug_run({"student.task_shares": {"colors": 0}})


def test_a_run_without_shares_is_named_as_before(debug_run, walk, train) -> None:
    config = debug_run()
    upstream = walk(config)
    assert "task_shares" not in student.slice_of(config.student)
    weighed = debug_run({"student.task_shares": SHARES})
    assert student.folder(weighed, upstream) != student.folder(config, upstream)
    facts = student.describe(weighed, upstream, train(weighed, upstream)).facts
    assert facts["shown by task"] == "position 60%, counting 30%, colors 10%, two_object 0%"
    assert load_run("tiny").student.task_shares == {}
