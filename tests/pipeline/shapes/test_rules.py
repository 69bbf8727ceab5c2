import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shapes.grammar import COLOURS, SHAPES, TASKS, parse, specs
from pipeline.shapes.rules import Box, Found, alignment, check, num_extra, relations

SCENES = [spec for task in TASKS for spec in specs(task)]
BOXES = st.builds(
    lambda left, top, width, height: Box(left, top, left + width, top + height),
    *[st.integers(0, 100)] * 2,
    *[st.integers(1, 40)] * 2,
)
FOUND = st.lists(
    st.builds(Found, st.sampled_from(SHAPES), st.sampled_from(COLOURS), BOXES, st.floats(0, 1)),
    max_size=6,
)


def at(shape: str, colour: str, x: int, y: int, score: float = 1.0) -> Found:
    return Found(shape, colour, Box(x, y, x + 10, y + 10), score)


def outcome(caption: str, *found: Found):
    spec = parse(caption)
    assert spec
    return check(spec, found)


@given(st.sampled_from(SCENES), FOUND)
def test_full_credit_is_given_exactly_to_the_correct(spec, found) -> None:
    assert 0 <= alignment(spec, found) <= 1
    assert (alignment(spec, found) == 1) == check(spec, found).correct
    assert bool(check(spec, found).reason) != check(spec, found).correct


@given(BOXES, BOXES)
def test_relations_are_mirrored_when_the_boxes_are(one, other) -> None:
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert {turned[relation] for relation in relations(one, other)} == relations(other, one)


def test_the_slack_is_a_tenth_of_both_sizes() -> None:
    here = Box(0, 0, 10, 10)
    assert relations(Box(4, 0, 14, 10), here) == frozenset()  # revised 2 of 4, not over a half
    assert relations(Box(5, 0, 15, 10), here) == {"right of"}  # revised 3 of 5
    assert relations(Box(0, 2, 10, 12), here) == frozenset()  # revised 0
    assert relations(Box(-20, -20, -10, -10), here) == {"left of", "above"}


@pytest.mark.parametrize(("number", "reason"), [(1, "wrong count"), (2, ""), (3, "wrong count")])
def test_counting_wants_exactly_n(number: int, reason: str) -> None:
    found = [at("circle", colour, 20 * i, 0) for i, colour in enumerate(COLOURS[:number])]
    assert outcome("two circles", *found).reason == reason


def test_counting_with_a_colour_wants_all_of_it() -> None:
    reds = [at("circle", "red", 20 * i, 0) for i in range(2)]
    assert outcome("two red circles", *reds).correct
    assert outcome("two red circles", reds[0], at("circle", "blue", 20, 0)).reason == "wrong colour"


def test_the_best_detection_of_a_class_decides_its_colour() -> None:
    red, blue = at("circle", "red", 0, 0, 0.9), at("circle", "blue", 20, 0, 0.8)
    assert outcome("a red circle", red, blue).correct
    assert outcome("a blue circle", red, blue).reason == "wrong colour"


def test_an_extra_object_is_not_wrong_where_geneval_would_not_say_so() -> None:
    found = [at("circle", "red", 0, 0), at("square", "blue", 20, 0), at("cross", "red", 40, 0)]
    assert outcome("a circle and a square", *found).correct
    spec = parse("a circle and a square")
    assert spec
    assert num_extra(spec, found) == 1


@pytest.mark.parametrize(
    ("relation", "place"), [("left of", (0, 20)), ("above", (20, 0)), ("right of", (40, 20))]
)
def test_the_relation_holds_of_the_first_named(relation: str, place: tuple[int, int]) -> None:
    circle, square = at("circle", "red", *place), at("square", "blue", 20, 20)
    assert outcome(f"a circle {relation} a square", circle, square).correct
    assert outcome(f"a square {relation} a circle", circle, square).reason == "wrong position"


def test_reasons_name_what_is_seen() -> None:
    for colour, other in itertools.permutations(COLOURS, 2):
        seen = outcome(f"a {colour} circle", at("circle", other, 0, 0))
        assert seen.words == f"circle is {other}, not {colour}"
    assert outcome("a circle").words == "no circle"
