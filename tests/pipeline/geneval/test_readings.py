"""What was read from a picture: JSON and back, and a decision without a model."""

import json

import numpy as np
import pytest

from pipeline.geneval.prompts import COLOURS, parse
from pipeline.geneval.readings import Colour, Reading, short
from pipeline.geneval.rules import Thresholds

REQUEST = parse(
    {
        "tag": "color_attr",
        "prompt": "a red dog and a cat",
        "include": [{"class": "dog", "count": 1, "color": "red"}, {"class": "cat", "count": 1}],
    },
    "row",
)


def colour(name: str) -> Colour:
    return Colour(tuple(25.5 if each == name else 20.125 for each in COLOURS))


@pytest.fixture
def reading() -> Reading:
    dogs = np.array([[1, 2, 30, 40, 0.31], [5, 6, 7, 8, 0.899999]], np.float32)
    cats = np.array([[0, 0, 9, 9, 1 / 3]], np.float32)
    return Reading({"dog": dogs, "cat": cats}, {"dog": {0: colour("blue"), 1: colour("red")}})


def test_a_reading_is_the_same_after_json(reading: Reading) -> None:
    text = json.dumps(reading.record(REQUEST))
    again = Reading.from_json(json.loads(text), "line")
    assert again.colours == reading.colours
    for name, boxes in reading.boxes.items():
        assert np.array_equal(again.boxes[name].astype(np.float32), boxes)
    assert json.dumps(again.record(REQUEST)) == text
    assert again.outcome(REQUEST) == reading.outcome(REQUEST)


@pytest.mark.parametrize("value", [0.3, 0.9, 1 / 3, 1e-7, 512.0, np.nextafter(np.float32(0.3), 1)])
def test_a_number_is_short_and_the_same_float32(value: float) -> None:
    assert np.float32(short(value)) == np.float32(value)
    assert (np.float32(value) > np.float32(0.3)) == (short(value) > 0.3)


def test_another_programs_numbers_stay_as_they_are() -> None:
    told = {"detections": {"dog": [[0.1, 0.2, 5.0, 5.0, 0.30000000000000004]]}, "colors": {}}
    assert Reading.from_json(told, "line").to_json() == told


def test_margins_are_told_a_clause(reading: Reading) -> None:
    told = reading.record(REQUEST)["margins"]
    assert [(each["clause"], each["class"]) for each in told] == [
        ("count", "dog"),
        ("color", "dog"),
        ("count", "cat"),
    ]
    assert [each["margin"] for each in told] == pytest.approx([0.599999, 5.375, 0.033333], abs=1e-6)


def test_other_thresholds_need_no_model(reading: Reading) -> None:
    assert reading.outcome(REQUEST).correct
    assert reading.outcome(REQUEST, Thresholds(score=0.4)).words == "no cat"
    few = Reading(reading.boxes, {"dog": {0: colour("blue")}})
    with pytest.raises(ValueError, match="the colour of dog 1 was not read"):
        few.outcome(REQUEST)


def test_the_chosen_boxes_are_the_surest_above_the_threshold(reading: Reading) -> None:
    chosen = reading.chosen(REQUEST, Thresholds(score=0.32))
    assert chosen["dog"][:, 4].tolist() == pytest.approx([0.899999])
    assert set(chosen) == {"dog", "cat"}


def test_another_program_may_tell_colours_by_name(reading: Reading) -> None:
    told = {"detections": {"dog": [[0, 0, 5, 5, 0.9]], "cat": [[0, 0, 5, 5, 0.9]]}}
    named = Reading.from_json({**told, "colors": {"dog": {"0": "red"}}}, "line")
    assert named.outcome(REQUEST).correct
    listed = Reading.from_json({**told, "colors": {"dog": ["blue"]}}, "line")
    assert listed.outcome(REQUEST).words == "dog is blue, not red"


FAULTS = {
    "detections of 'mouse', none of the 80": {"detections": {"mouse": []}},
    "rows of left, top, right, bottom, score": {"detections": {"dog": [[1, 2, 3, 4]]}},
    "not rows of numbers": {"detections": {"dog": [["a"]]}},
    "detections must be an object": {"detections": [1]},
    "expected 10 logits": {"detections": {}, "colors": {"dog": {"0": {"logits": [1]}}}},
    "colors of dog: expected an object by number": {"colors": {"dog": {"first": "red"}}},
    "color of dog 0: expected 10 logits": {"colors": {"dog": [7]}},
    "says 'blue', but its logits say 'red'": {
        "colors": {"dog": {"0": {"color": "blue", "logits": list(range(10, 0, -1))}}}
    },
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_reading_that_is_none_is_named(sentence: str) -> None:
    with pytest.raises(ValueError, match=f"line.*{sentence}"):
        Reading.from_json(FAULTS[sentence], "line")
