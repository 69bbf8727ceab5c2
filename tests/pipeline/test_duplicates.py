"""Near duplicates: found, and only these; nothing appended changes what was decided."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rensa")

from pipeline.duplicates import repeats
from pipeline.signatures import signatures_of

CAPTION = "a small wooden house with a green door stands beside a quiet lake under tall pine trees"


def found(captions: list[str], similarity: float = 0.8, **values) -> dict[int, int]:
    values = {"keep_concepts": True, **values}
    return repeats(captions, signatures_of(captions), similarity, **values)


def vocabulary(number: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(generator.choices(letters, k=generator.randint(4, 9))) for _ in range(number)]


@pytest.mark.parametrize(
    "twin",
    [
        CAPTION.upper(),
        CAPTION.replace(" ", ", ", 3) + ".",
        CAPTION.replace("a ", "the "),
        f"A photo of {CAPTION}",
        CAPTION.replace("wooden", "woodne"),
        CAPTION.replace("wooden ", ""),
        CAPTION.replace("quiet", "very quiet"),
        CAPTION.replace("tall pine", "pine tall"),
    ],
)
def test_small_changes_make_a_near_duplicate(twin: str) -> None:
    assert found([CAPTION, "something else entirely", twin]) == {2: 0}


@pytest.mark.parametrize(
    "other",
    [
        CAPTION.replace("green", "red"),
        CAPTION.replace("beside", "above"),
        CAPTION.replace("a small", "two small"),
        CAPTION.replace("quiet lake", "lonely station"),
    ],
)
def test_another_colour_count_or_place_is_another_caption(other: str) -> None:
    assert found([CAPTION, other]) == {}


def test_swapped_roles_are_another_caption() -> None:
    one = "a red cat and a blue dog sleep side by side on the soft carpet of the old library"
    other = one.replace("red cat and a blue dog", "blue cat and a red dog")
    assert found([one, other]) == {}
    assert found([one, other], keep_concepts=False) == {1: 0}


def test_planted_twins_are_found_and_strangers_kept() -> None:
    words, generator = vocabulary(3000, 1), random.Random(2)
    captions = [" ".join(generator.choices(words, k=20)) for _ in range(3000)]
    twins = []
    for number in range(300):
        parts = captions[number].split()
        parts[generator.randrange(20)] = "quietly"
        twins.append(" ".join(parts))
    repeated = found(captions + twins)
    assert all(repeated.get(3000 + n, n) == n for n in range(300))
    assert len(repeated) >= 0.95 * 300
    assert min(repeated) >= 3000


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.integers(1, 100))
def test_what_is_appended_changes_nothing_above(seed: int, first: int) -> None:
    generator = random.Random(seed)
    words = vocabulary(20, 3)
    captions = [" ".join(generator.choices(words, k=6)) for _ in range(100)]
    whole = found(captions)
    assert found(captions[:first]) == {r: e for r, e in whole.items() if r < first}
    assert all(earlier not in whole for earlier in whole.values())


def test_a_crowded_band_hides_no_twin_and_appending_changes_nothing() -> None:
    """All begin alike, so far more share a band than are paired in it."""
    words = vocabulary(7, 4)
    captions = [f"{CAPTION[:30]} {a} {b}" for a in words for b in words]
    twins = [caption.upper() for caption in captions]
    values = {"similarity": 0.95, "keep_concepts": False}
    whole = found(captions + twins, **values)
    assert whole == {row + len(captions): row for row in range(len(captions))}
    for number in (20, 60, 80):
        part = found((captions + twins)[:number], **values)
        assert part == {row: earlier for row, earlier in whole.items() if row < number}


def test_prompts_are_repeated_but_captions_do_not_repeat_each_other() -> None:
    prompts = ["a photo of a bench", CAPTION]
    captions = ["Bench.", "a dog", "a dog!", CAPTION.replace("quiet ", "")]
    assert found(prompts + captions, prompts=2, keep_concepts=False) == {2: 0, 5: 1}


def test_what_similar_captions_choose_among_is_no_slip() -> None:
    """Captions of one template differ in a word as twins do, and are no twins."""
    generator = random.Random(5)
    slots = [vocabulary(10, seed) for seed in range(8)]
    captions = {" with ".join(map(generator.choice, slots)): None for _ in range(4000)}
    assert len(found(list(captions))) <= 0.02 * len(captions)
    twin = next(iter(captions)).replace(" with ", " wiht ", 1)
    assert found([*captions, twin])[len(captions)] == 0


def test_nothing_repeats_nothing() -> None:
    assert found([]) == {}
    assert found(["a cat"]) == {}
