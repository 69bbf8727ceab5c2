import numpy as np
import pytest

pytest.importorskip("rensa")

from pipeline.likeness import words_of
from pipeline.signatures import signatures_of

CAPTION = "a small wooden house with a green door stands beside a quiet lake under tall pine trees"


def test_a_text_has_the_same_signature_in_any_company() -> None:
    captions = ["x", "", "???", "猫", CAPTION, "ab cd", "a" * 100_000]
    together = signatures_of(captions)
    for row, caption in enumerate(captions):
        alone = signatures_of([caption])
        assert np.array_equal(alone.bands[0], together.bands[row])
        assert np.array_equal(alone.minima[0], together.minima[row])
    assert len(signatures_of([]).bands) == 0


def test_equal_minima_estimate_the_similarity() -> None:
    other = CAPTION.replace("tall pine trees", "low grey clouds of dust")
    pair = signatures_of([CAPTION, other]).minima
    one, two = (words_of(caption).shingles for caption in (CAPTION, other))
    exact = len(one & two) / len(one | two)
    assert abs((pair[0] == pair[1]).mean() - exact) < 0.15
