"""GenEval's rules on detections made by hand: every clause, every edge, and what always holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geneval.prompts import COLOURS, RELATIONS, parse
from pipeline.geneval.rules import (
    Thresholds,
    coloured,
    decide,
    margins,
    num_extra,
    overlap,
    relations,
    select,
)


def row(*include, tag="two_object", exclude=()):
    values = {"tag": tag, "prompt": "p", "include": list(include), "exclude": list(exclude)}
    return parse(values, "row")


def want(name="dog", count=1, **more):
    return {"class": name, "count": count, **more}


def boxes(*scores, left=0.0, top=0.0, side=10.0, step=0.0):
    """One box a score, each `step` further to the right."""
    corners = [
        [left + step * n, top, left + step * n + side, top + side] for n in range(len(scores))
    ]
    rows = [[*corner, score] for corner, score in zip(corners, scores, strict=True)]
    return np.array(rows, np.float32).reshape(-1, 5)


def right(request, seen, colours=None):
    return decide(request, seen, colours or {}).correct


# --- scores and counts --------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "least"), [("single_object", 0.3), ("counting", 0.9)])
def test_a_score_counts_above_its_threshold_and_not_at_it(tag, least):
    request = row(want(), tag=tag)
    above = float(np.nextafter(np.float32(least), np.float32(1)))
    assert not right(request, {"dog": boxes(least)})
    assert right(request, {"dog": boxes(above)})
    assert not right(request, {"dog": np.array([[0, 0, 1, 1, least]])})  # as float64, too


@pytest.mark.parametrize(("number", "correct"), [(0, False), (1, False), (2, True), (3, False)])
def test_counting_is_exact_among_objects_above_0_9(number, correct):
    request = row(want(count=2), tag="counting", exclude=[want(count=3)])
    seen = {"dog": boxes(*[0.95] * number, 0.9, 0.8, 0.31)}
    assert right(request, seen) == correct
    assert decide(request, seen, {}).reason == ("" if correct else "wrong count")


def test_without_an_exclude_more_objects_than_asked_are_right():
    assert right(row(want(count=2)), {"dog": boxes(0.5, 0.5, 0.5), "cat": boxes(0.9)})


def test_the_objects_of_every_clause_must_be_there():
    request = row(want("dog"), want("cat"))
    outcome = decide(request, {"dog": boxes(0.99)}, {})
    assert (outcome.correct, outcome.reason, outcome.words) == (False, "missing object", "no cat")


def test_at_most_16_objects_of_a_class_count():
    request = row(want(count=1), tag="counting", exclude=[want(count=17)])
    assert select(boxes(*[0.95] * 20), "counting") == list(range(19, 3, -1))
    assert right(request, {"dog": boxes(*[0.95] * 20)})  # 17 are never seen, as published
    assert not right(row(want(count=17)), {"dog": boxes(*[0.95] * 20)})


def test_an_exclude_alone_and_no_clause_at_all_are_decided():
    assert right(row(), {"dog": boxes(0.9)})
    assert not right(row(exclude=[want()]), {"dog": boxes(0.5)})
    assert right(row(exclude=[want()]), {"dog": boxes(0.1)})


def test_the_surest_come_first_and_of_equals_the_later_one():
    assert select(boxes(0.5, 0.9, 0.2, 0.7), "colors") == [1, 3, 0]
    assert select(boxes(0.5, 0.5, 0.9, 0.5), "colors") == [2, 3, 1, 0]


def test_a_threshold_below_what_is_kept_is_named():
    with pytest.raises(ValueError, match=r"0\.01 and 0\.9: detections below 0\.05 are not kept"):
        Thresholds(score=0.01)


def test_a_score_that_is_no_number_never_counts():
    assert select(boxes(np.nan, 0.5), "colors") == [1]


# --- overlaps -----------------------------------------------------------------------------------


def test_overlapping_boxes_all_count_as_published_and_less_where_asked():
    seen = boxes(0.9, 0.8, 0.7, step=2.0)
    assert select(seen, "colors") == [0, 1, 2]
    assert select(seen, "colors", Thresholds(max_overlap=0.6)) == [0, 2]
    assert select(seen, "colors", Thresholds(max_overlap=0.4)) == [0]


def test_overlap_takes_the_last_pixel_as_inside():
    one, other = np.array([0, 0, 9, 9, 1.0]), np.array([5, 0, 14, 9, 1.0])
    assert overlap(one, one) == 1
    assert overlap(one, other) == pytest.approx(50 / 150)
    assert overlap(one, np.array([20, 20, 29, 29, 1.0])) == 0


# --- colours ------------------------------------------------------------------------------------


def test_the_colour_of_the_surest_objects_is_asked_and_of_no_others():
    request = row(want(count=2, color="red"), tag="colors")
    seen = {"dog": boxes(0.4, 0.9, 0.8)}
    assert coloured(request, seen) == {("dog", 1), ("dog", 2)}
    assert right(request, seen, {"dog": {1: "red", 2: "red", 0: "blue"}})
    outcome = decide(request, seen, {"dog": {1: "red", 2: "blue", 0: "red"}})
    assert (outcome.reason, outcome.words) == ("wrong colour", "dog is blue, not red")


def test_no_colour_is_asked_where_there_are_too_few():
    request = row(want(count=2, color="red"), tag="colors")
    assert coloured(request, {"dog": boxes(0.4)}) == set()
    assert not right(request, {"dog": boxes(0.4)})


def test_two_objects_have_a_colour_each():
    request = row(want("dog", color="red"), want("cat", color="blue"), tag="color_attr")
    seen = {"dog": boxes(0.9), "cat": boxes(0.9)}
    assert right(request, seen, {"dog": {0: "red"}, "cat": {0: "blue"}})
    outcome = decide(request, seen, {"dog": {0: "blue"}, "cat": {0: "red"}})
    assert outcome.words == "dog is blue, not red; cat is red, not blue"


# --- positions ----------------------------------------------------------------------------------


def at(x, y, side=10.0):
    return np.array([x, y, x + side, y + side, 0.9])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-30, 0, {"left of"}),
        (30, 0, {"right of"}),
        (0, -30, {"above"}),
        (0, 30, {"below"}),
        (30, 30, {"right of", "below"}),  # a diagonal holds two
        (-30, -30, {"left of", "above"}),
        (0, 0, set()),
        (2, 0, set()),  # within the slack of a tenth of both sizes
        (4, 0, set()),  # beyond it, but half of the offset only
        (4.01, 0, {"right of"}),
        (30, 14, {"right of"}),
    ],
)
def test_where_a_box_lies_as_seen_from_another(x, y, expected):
    assert relations(at(x, y), at(0, 0)) == expected


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_an_offset_that_is_no_number_holds_no_relation(broken):
    wide = np.array([broken, 0, broken, 10, 0.9])
    assert relations(wide, at(0, 0)) == set()
    assert relations(at(0, 0), wide) == set()
    assert relations(wide, wide) == set()


def test_the_relation_is_that_of_the_second_object_to_the_first():
    request = row(want("cat"), want("dog", position=["left of", 0]), tag="position")
    seen = {"cat": boxes(0.9, left=100), "dog": boxes(0.9)}
    assert right(request, seen)
    swapped = decide(request, {"cat": seen["dog"], "dog": seen["cat"]}, {})
    assert swapped.reason == "wrong position"
    assert swapped.words == "dog is right of the other, not left of"


def test_every_pair_must_hold_and_only_the_surest_are_paired():
    request = row(want("cat"), want("dog", 2, position=["right of", 0]), tag="position")
    cat = boxes(0.9, left=50)
    assert right(request, {"cat": cat, "dog": boxes(0.9, 0.8, left=100, step=30)})
    assert not right(request, {"cat": cat, "dog": boxes(0.9, 0.8, left=100, step=-90)})
    assert right(request, {"cat": cat, "dog": boxes(0.9, 0.8, 0.7, left=100, step=30)})


def test_objects_in_one_place_are_in_no_relation():
    request = row(want("cat"), want("dog", position=["left of", 0]), tag="position")
    outcome = decide(request, {"cat": boxes(0.9), "dog": boxes(0.9)}, {})
    assert outcome.words == "dog is in the place of the other, not left of"


def test_an_object_of_the_wrong_colour_or_none_is_no_target():
    request = row(want("cat", color="red"), want("dog", position=["left of", 0]), tag="position")
    seen = {"cat": boxes(0.9, left=100), "dog": boxes(0.9)}
    assert right(request, seen, {"cat": {0: "red"}})
    outcome = decide(request, seen, {"cat": {0: "blue"}})
    assert outcome.words == "cat is blue, not red; nothing that dog could be left of"
    assert not right(request, {"dog": seen["dog"]})


# --- what always holds --------------------------------------------------------------------------

numbers = st.floats(-50, 50, width=32)
sides = st.floats(1, 40, width=32)
box = st.tuples(numbers, numbers, sides, sides).map(
    lambda v: np.array([v[0], v[1], v[0] + v[2], v[1] + v[3], 0.9], np.float32)
)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def test_objects_too_many_are_sure_ones_of_the_asked_classes() -> None:
    request = row(want("dog"), want("cat", 2))
    seen = {"dog": boxes(0.95, 0.92, 0.5), "cat": boxes(0.99), "bench": boxes(0.99, 0.99)}
    assert num_extra(request, seen) == 1
    assert right(request, seen | {"cat": boxes(0.99, 0.4)})
    assert num_extra(row(want("dog"), want("dog", 2)), {"dog": boxes(0.95, 0.94, 0.93)}) == 0
    assert num_extra(request, {}) == 0


@given(box, box)
def test_relations_turn_round_with_the_boxes(one, other):
    there = relations(one, other)
    assert {OPPOSITE[name] for name in there} == relations(other, one)
    assert there <= set(RELATIONS)
    assert len(there) <= 2
    assert not {"left of", "right of"} <= there
    assert not {"above", "below"} <= there


@given(box, box)
def test_what_is_left_of_is_above_when_the_picture_is_turned(one, other):
    turned = [np.array([b[1], b[0], b[3], b[2], b[4]], np.float32) for b in (one, other)]
    swap = {"left of": "above", "above": "left of", "right of": "below", "below": "right of"}
    assert {swap[name] for name in relations(one, other)} == relations(*turned)


@st.composite
def pictures(draw):
    names = ("dog", "cat", "tv")
    scores = st.lists(st.floats(0, 1, width=32), max_size=5, unique=True)
    seen = {}
    for name in names:
        found = [np.append(draw(box)[:4], score) for score in draw(scores)]
        seen[name] = np.array(found, np.float32).reshape(-1, 5)
    include = []
    for index in range(draw(st.integers(0, 3))):
        clause = want(draw(st.sampled_from(names)), draw(st.integers(1, 3)))
        if draw(st.booleans()):
            clause["color"] = draw(st.sampled_from(COLOURS[:2]))
        if index and draw(st.booleans()):
            clause["position"] = [draw(st.sampled_from(RELATIONS)), draw(st.integers(0, index - 1))]
        include.append(clause)
    exclude = [want(draw(st.sampled_from(names)), draw(st.integers(1, 4)))]
    tag = draw(st.sampled_from(["counting", "color_attr"]))
    request = row(*include, tag=tag, exclude=exclude if draw(st.booleans()) else ())
    colours = {
        name: {n: draw(st.sampled_from(COLOURS[:2])) for n in range(len(found))}
        for name, found in seen.items()
    }
    return request, seen, colours


@given(pictures(), st.randoms())
def test_the_order_in_which_a_detector_tells_changes_nothing(picture, chance):
    request, seen, colours = picture
    mixed, recoloured = {}, {}
    for name, found in seen.items():
        order = list(range(len(found)))
        chance.shuffle(order)
        mixed[name] = found[order]
        recoloured[name] = {new: colours[name][old] for new, old in enumerate(order)}
    assert decide(request, seen, colours) == decide(request, mixed, recoloured)


@given(pictures())
def test_other_objects_below_the_threshold_change_nothing(picture):
    request, seen, colours = picture
    more = {name: np.concatenate([found, boxes(0.3, 0.1, 0.0)]) for name, found in seen.items()}
    assert decide(request, seen, colours) == decide(request, more, colours)


@given(pictures())
def test_a_picture_is_right_exactly_when_every_margin_says_so(picture):
    request, seen, colours = picture
    leads = {
        name: {n: {c: 1.0 if c == own else -1.0 for c in COLOURS} for n, own in each.items()}
        for name, each in colours.items()
    }
    outcome = decide(request, seen, colours)
    told = margins(request, seen, leads)
    holds = all(each.margin > 0 or (each.clause == "exclude" and each.margin == 0) for each in told)
    assert outcome.correct == holds
    assert outcome.correct == (outcome.reason == "")
