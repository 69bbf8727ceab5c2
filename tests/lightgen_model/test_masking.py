"""Masks and their ratios against their definition."""

import pytest
import torch

from lightgen_model.masking import draw_masks, mask_ratios


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
