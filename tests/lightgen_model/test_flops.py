"""Work is counted as the spec counts it, and as torch's counter does."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightgen_model.config import (
    HeadConfig,
    ModelConfig,
    RepaConfig,
    SamplingConfig,
    debug,
    lightgen_base,
    lightgen_published,
    tiny,
)
from lightgen_model.flops import (
    forward_flops,
    head_flops,
    parameter_count,
    sampling_flops,
    training_flops,
)
from lightgen_model.model import LightGen
from lightgen_model.sampling import sample


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


@pytest.mark.parametrize(("tokens", "tflops"), [(256, 20.1), (1024, 84.3)])
def test_a_published_picture_costs_what_the_spec_says(tokens: int, tflops: float) -> None:
    """64 iterations of 100 steps under guidance: the exact restructure of lightgen.md 3.3, which
    embeds time and condition at each step of each token; ours does it once."""
    work = sampling_flops(lightgen_published(), tokens, SamplingConfig())
    embedded = 2 * (1024 + 256 + 1536) * 1536 * 2 * tokens * 100
    assert (work + embedded) / 1e12 == pytest.approx(tflops, abs=0.06)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(
    ("kind", "solver", "last"), [("flow", None, None), ("flow", "heun", 2), ("ddpm", "ddim", None)]
)
def test_torch_counts_the_same_when_a_picture_is_drawn(
    kind: str, solver: str | None, last: int | None, guidance: float
) -> None:
    head = HeadConfig(kind=kind, depth=2, width=48)  # type: ignore[arg-type]
    config = debug().model_copy(update={"head": head})
    model = LightGen(config).init_weights(torch.Generator().manual_seed(0)).eval()
    model.requires_grad_(False)  # the counter looks for gradients where there are none
    sampling = SamplingConfig(
        num_iterations=5, head_steps=6, last_head_steps=last, solver=solver, guidance=guidance
    )  # type: ignore[arg-type]
    states, lengths = torch.randn(8, 16, 128), torch.full((8,), 16)
    with FlopCounterMode(display=False) as counted:
        sample(model, states, lengths, sampling, image_size=64, seeds=range(8))
    work = 8 * sampling_flops(config, 16, sampling, 16)
    assert work == pytest.approx(counted.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    "config",
    [
        lightgen_published(),
        lightgen_base(),
        tiny().model_copy(update={"qk_norm": True}),
        debug().model_copy(update={"repa": RepaConfig(width=24, block=1, hidden=40)}),
    ],
    ids=["published", "base", "qk_norm", "repa"],
)
def test_the_weights_are_as_many_as_the_model_has(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = LightGen(config)
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
