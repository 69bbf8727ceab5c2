"""Schedules against the published counts; masks against their definition."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightgen_model.masking import draw_masks, mask_ratios, tokens_left


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


def test_the_truncated_normal_has_the_published_moments() -> None:
    ratios = mask_ratios(200_000, "truncated_normal", 0.7, torch.Generator().manual_seed(0))
    assert ratios.mean().item() == pytest.approx(0.86702, abs=1e-3)
    assert ratios.std().item() == pytest.approx(0.08355, abs=1e-3)
    assert ratios.median().item() == pytest.approx(0.87429, abs=1e-3)
    ends = torch.tensor([0.05, 0.95], dtype=torch.float64)
    assert ratios[:100_000].quantile(ends).tolist() == pytest.approx([0.7234, 0.9879], abs=1e-3)
    assert 0.7 <= ratios.min() <= ratios.max() <= 1.0


def test_one_ratio_a_batch_masks_every_sample_alike() -> None:
    mask = draw_masks(32, 256, torch.Generator().manual_seed(0))
    assert mask.sum(1).unique().numel() == 1
    assert mask.unique(dim=0).shape[0] > 1


def test_ratios_per_sample_differ_and_never_mask_nothing() -> None:
    mask = draw_masks(
        500,
        16,
        torch.Generator().manual_seed(0),
        distribution="uniform",
        min_ratio=0.0,
        per_sample=True,
    )
    assert set(mask.sum(1).tolist()) == set(range(1, 17))


def test_an_unknown_distribution_is_named() -> None:
    with pytest.raises(ValueError, match="'beta'; allowed: truncated_normal"):
        mask_ratios(1, "beta", 0.7, torch.Generator())
