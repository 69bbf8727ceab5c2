import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.likeness import Likeness, words_of

LONG = (
    "the old baker carries warm bread across the narrow bridge while soft rain falls on roofs and "
    "pale lanterns sway over shuttered windows"
)


def alike(one: str, other: str, **values) -> bool:
    values = {"similarity": 0.8, "keep_concepts": True, **values}
    return Likeness(**values).alike(words_of(one), words_of(other))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a red cat", "The RED cat!", True),
        ("a red cat", "a photo of a red cat", True),
        ("a red cat", "a red dog", False),
        ("a cat", "two cats", False),
        (LONG, LONG.replace("warm ", ""), True),
        (LONG, LONG.replace("soft rain", "rain soft"), True),
        (LONG, f"two {LONG}", False),
        (LONG, LONG.replace("across", "above"), False),
    ],
)
def test_small_changes_are_alike(one: str, other: str, expected: bool) -> None:
    assert alike(one, other) is alike(other, one) is expected


def test_letters_alone_count_where_concepts_do_not() -> None:
    assert alike(LONG, LONG.replace("across", "above"), keep_concepts=False)


@given(st.text(), st.text())
def test_likeness_is_symmetric_and_everything_is_like_itself(one: str, other: str) -> None:
    assert alike(one, one)
    assert alike(one, other) == alike(other, one)


def test_a_word_that_templates_choose_makes_another_caption() -> None:
    likeness = Likeness(0.8, True)
    other = LONG.replace("narrow", "wooden")
    assert likeness.first_same(["nothing", LONG], other, 2) == 1
    for row in range(300):
        likeness.first_same([LONG], LONG.replace("bread", "narrow wooden"), row)
    assert likeness.first_same([LONG], other, 400) is None
    assert likeness.first_same([LONG], other, 400_000) == 0
    assert likeness.first_same([LONG], LONG.replace("narrow", "narorw"), 400) == 0
    assert likeness.first_same([], LONG, 400) is None
