"""Latents: drawn from their moments, normalised."""

import pytest
import torch

from lightgen_model.latents import draw_latents


def test_drawn_latents_have_the_spread_that_the_moments_say() -> None:
    log_variance = torch.log(torch.tensor(0.25))
    moments = torch.cat(
        [torch.full((500, 4, 4, 4), 3.0), torch.full((500, 4, 4, 4), log_variance)], 1
    )
    drawn = draw_latents(moments, 2.0, 1.0, torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx((3 - 1) * 2, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5 * 2, abs=0.02)
    assert draw_latents(moments, 2.0, 1.0, None).unique().tolist() == [4.0]
    again = draw_latents(moments, 2.0, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
