import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shapes.grammar import TASKS, Spec, Thing, specs
from pipeline.shapes.renderer import BACKGROUND, MIN_GAP, layout, render
from pipeline.shapes.rules import Box, relations

SCENES = [spec for task in TASKS for spec in specs(task)]


@given(
    st.sampled_from(SCENES),
    st.integers(0, 2**32),
    st.sampled_from([64, 96, 128]),
    st.integers(0, 6),
    st.booleans(),
)
def test_a_layout_holds_what_is_asked_apart_and_inside(spec, seed, size, jitter, free) -> None:
    rng = np.random.default_rng(seed)
    placed = layout(spec, rng, size, jitter_pixels=jitter, free_placement=free)
    assert len(placed) == sum(thing.count for thing in spec.things)
    for index, one in enumerate(placed):
        assert min(one.left, one.top) >= MIN_GAP
        assert max(one.left, one.top) + one.size <= size - MIN_GAP
        for other in placed[:index]:
            gaps = abs(one.left - other.left), abs(one.top - other.top)
            assert max(gaps) >= one.size + MIN_GAP
    if spec.relation:
        assert relations(placed[0].box, placed[1].box) == {spec.relation}


def test_the_same_generator_state_draws_the_same_picture() -> None:
    spec = Spec("counting", (Thing("cross", None, 4),))
    one, other = (render(layout(spec, np.random.default_rng(5), 64), 64) for _ in range(2))
    assert np.array_equal(one, other)


def test_nothing_placed_is_background_alone() -> None:
    assert (render([], 64) == np.array(BACKGROUND)).all()


def test_every_place_that_satisfies_a_relation_occurs() -> None:
    spec = Spec("position", (Thing("circle"), Thing("square")), "above")
    rng = np.random.default_rng(0)
    seen = {
        tuple((one.left // 16, one.top // 16) for one in layout(spec, rng, 64)) for _ in range(4000)
    }
    cells = [(x, y) for x in range(4) for y in range(4)]
    clear = {
        (one, other) for one in cells for other in cells if _boxes_relate(one, other) == {"above"}
    }
    assert seen == clear


def _boxes_relate(one, other) -> frozenset[str]:
    boxes = [Box(16 * x + 2, 16 * y + 2, 16 * x + 14, 16 * y + 14) for x, y in (one, other)]
    return relations(*boxes)


@pytest.mark.parametrize("size", [16, 70])
def test_an_impossible_size_names_both_numbers(size: int) -> None:
    with pytest.raises(ValueError, match=rf"image size {size} must be a multiple .* 16"):
        layout(Spec("single_object", (Thing("circle"),)), np.random.default_rng(0), size)


def test_no_room_says_so() -> None:
    spec = Spec("counting", (Thing("circle", None, 4),))
    with pytest.raises(ValueError, match="no room for 4 objects of 6 px in a picture of 16 px"):
        layout(spec, np.random.default_rng(0), 16, 8, free_placement=True)
