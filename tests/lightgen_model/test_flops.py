"""Work is counted as the spec counts it, and as torch's counter does."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightgen_model.config import HeadConfig, debug, lightgen_published
from lightgen_model.flops import forward_flops, head_flops, training_flops
from lightgen_model.model import LightGen


@pytest.mark.parametrize(
    ("tokens", "decoder", "cross", "head"), [(256, 107.4, 85.4, 182.1), (1024, 481.3, 315.8, 728.2)]
)
def test_the_published_size_costs_what_the_spec_says(
    tokens: int, decoder: float, cross: float, head: float
) -> None:
    """Its cross and head numbers are for all tokens; ours are for the 86.7% that are masked."""
    work = forward_flops(lightgen_published(), tokens, 0.86702)
    given = [work[part] / 1e9 for part in ("decoder", "text", "cross", "head")]
    assert given == pytest.approx([decoder, 21.1, cross, head], abs=0.06)
    assert head_flops(lightgen_published()) / 1e9 == pytest.approx(0.2074, abs=1e-4)


@pytest.mark.parametrize(("kind", "noises"), [("ddpm", 1), ("flow", 1), ("flow", 2)])
def test_torch_counts_the_same(kind: str, noises: int) -> None:
    values = {"kind": kind, "depth": 2, "width": 48}
    head = HeadConfig(batch_multiplier=2, noises_per_time=noises, **values)  # type: ignore[arg-type]
    config = debug().model_copy(update={"head": head})
    model = LightGen(config).init_weights(torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, :12] = True
    rows = model.num_draws(mask)
    latents, states = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 128)
    times, lengths = torch.ones(rows // noises).long(), torch.tensor([16, 3])
    with FlopCounterMode(display=False) as forward:
        out = model(latents, states, lengths, mask, times=times, noise=torch.randn(rows, 64))
    with FlopCounterMode(display=False) as backward:
        (out.mse + out.vb).sum().backward()
    ours = sum(forward_flops(config, 16, 0.75, 16).values())
    assert ours * 2 == pytest.approx(forward.get_total_flops(), rel=0.02)
    # The inputs themselves need no gradient, which a network this small feels.
    whole = forward.get_total_flops() + backward.get_total_flops()
    assert training_flops(config, 16, 0.75, 16) * 2 == pytest.approx(whole, rel=0.08)
