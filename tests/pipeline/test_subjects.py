"""Which captions are compared: by a hash alone, or by what they ask for."""

from collections import Counter

import pytest

from pipeline.shapes.grammar import FRONTS
from pipeline.subjects import chosen_by_task, chosen_first
from pipeline.tasks import task_of

CAPTIONS = {
    f"{kind}{number}": f"{front}{text}"
    for kind, text in (
        ("p", "a circle above a square"),
        ("c", "two circles"),
        ("s", "a circle"),
    )
    for number, front in enumerate(FRONTS[:5])
}


def tasks(chosen: list[str]) -> Counter[str]:
    return Counter(task_of(CAPTIONS[caption_id]) for caption_id in chosen)


def test_each_task_has_its_share_and_no_caption_comes_twice() -> None:
    shares = {"position": 2.0, "counting": 1.0, "single_object": 1.0}
    chosen = chosen_by_task(CAPTIONS, 0, 8, shares)
    assert tasks(chosen) == {"position": 4, "counting": 2, "single_object": 2}
    assert len(set(chosen)) == 8
    assert chosen != chosen_by_task(CAPTIONS, 1, 8, {"position": 1.0})


def test_what_a_task_lacks_the_others_make_up() -> None:
    chosen = chosen_by_task(CAPTIONS, 0, 8, {"position": 1.0})
    assert tasks(chosen)["position"] == 5
    assert len(set(chosen)) == 8


def test_within_a_task_the_order_is_that_of_the_hash() -> None:
    chosen = chosen_by_task(CAPTIONS, 3, 2, {"position": 1.0})
    positions = [each for each in chosen_first(CAPTIONS, 3, 15) if each.startswith("p")]
    assert chosen == positions[:2]


def test_a_task_that_no_caption_has_is_named() -> None:
    with pytest.raises(ValueError, match=r"task_shares: no caption asks for \['colours'\]"):
        chosen_by_task(CAPTIONS, 0, 2, {"colours": 1.0})
