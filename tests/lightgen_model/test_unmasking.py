"""Schedules against the published counts; mean ratios against what is drawn."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightgen_model.masking import mask_ratios
from lightgen_model.unmasking import DISTRIBUTIONS, expected_ratio, tokens_left


def per_step(num_tokens: int, num_iterations: int) -> list[int]:
    left = [num_tokens, *tokens_left(num_tokens, num_iterations)]
    return [before - after for before, after in pairwise(left)]


# lightgen.md 5.4, K = 64.
AT_256 = (
    "1 1 1 1 1 1 1 1 1 1 1 1 1 2 3 2 2 3 3 3 3 3 3 4 3 4 4 4 4 4 4 4 5 5 4 5 5 5 5 5 6 5 5 6 5 6"
)
AT_256 += " 6 6 5 6 6 6 6 6 6 7 6 6 6 6 7 6 6 6"
AT_1024 = "1 1 1 2 3 4 4 4 5 6 7 7 7 8 9 9 10 11 11 11 13 12 13 14 14 15 15 16 16 17 17 17 18 19 19"
AT_1024 += " 19 20 20 20 21 21 21 22 22 22 23 23 23 23 24 23 24 24 25 24 25 24 25 25 25 25 25 25 25"


def test_tokens_per_iteration_are_the_published_ones() -> None:
    assert per_step(256, 8) == [5, 15, 24, 31, 39, 45, 48, 49]
    assert per_step(256, 16) == [2, 3, 7, 8, 11, 13, 15, 16, 19, 20, 22, 23, 23, 25, 24, 25]
    assert per_step(256, 64) == [int(count) for count in AT_256.split()]
    assert per_step(1024, 64) == [int(count) for count in AT_1024.split()]
    assert per_step(4096, 64)[:10] == [2, 3, 7, 8, 11, 14, 16, 18, 21, 23]
    assert per_step(4096, 64)[-8:] == [99, 99, 100, 100, 100, 101, 100, 100]


@given(st.integers(1, 400), st.data())
def test_every_iteration_draws_a_token_and_all_are_drawn(tokens: int, data: st.DataObject) -> None:
    iterations = data.draw(st.integers(1, tokens))
    steps = per_step(tokens, iterations)
    assert len(steps) == iterations
    assert min(steps) >= 1
    assert sum(steps) == tokens


def test_more_iterations_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="17 iterations for 16 tokens; allowed: 1 to 16"):
        tokens_left(16, 17)


def test_the_published_mean_ratio() -> None:
    assert expected_ratio("truncated_normal", 0.7) == pytest.approx(0.86702, abs=1e-5)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("min_ratio", [0.0, 0.7, 1.0])
def test_the_mean_ratio_is_that_of_the_ratios_drawn(distribution: str, min_ratio: float) -> None:
    drawn = mask_ratios(200_000, distribution, min_ratio, torch.Generator().manual_seed(0))
    assert expected_ratio(distribution, min_ratio) == pytest.approx(drawn.mean().item(), abs=2e-3)


def test_an_unknown_distribution_has_no_mean() -> None:
    with pytest.raises(ValueError, match="'beta'; allowed: truncated_normal"):
        expected_ratio("beta", 0.7)
