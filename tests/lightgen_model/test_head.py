"""The head: its time features, its zero start, its guidance."""

from itertools import product

import pytest
import torch
from einops import repeat
from torch import Tensor

from lightgen_model.config import SOLVERS, HeadConfig, Solver
from lightgen_model.head import DiffusionHead, draw_times, time_features

EVERY_SOLVER = [(kind, solver) for kind, solvers in SOLVERS.items() for solver in solvers]


def test_time_features_have_the_published_values() -> None:
    features = time_features(torch.tensor([1]))[0]
    assert features[[0, 1, 128]].tolist() == pytest.approx([0.5403023, 0.5973753, 0.8414710])
    assert features[255].item() == pytest.approx(1.0746e-04, rel=1e-3)
    assert features.sum().item() == pytest.approx(138.00299, rel=1e-5)


@pytest.mark.parametrize(("kind", "solver"), EVERY_SOLVER)
def test_equal_conditions_make_guidance_do_nothing(kind: str, solver: Solver) -> None:
    torch.manual_seed(0)
    head = DiffusionHead(HeadConfig(kind=kind, depth=1, width=16), 8, 12)  # type: ignore[arg-type]
    condition = torch.randn(3, 12)

    def draw(null: torch.Tensor | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        stream = iter(lambda: torch.randn(3, 8, generator=generator), None)
        return head.sample(
            condition,
            null,
            stream,
            num_steps=5,
            guidance=7.0,
            temperature=1.0,
            solver=solver,
        )

    with torch.inference_mode():
        assert torch.allclose(draw(None), draw(condition), rtol=1e-3, atol=1e-3)


def test_times_are_drawn_in_the_units_of_the_head() -> None:
    generator = torch.Generator().manual_seed(0)
    ddpm = HeadConfig(kind="ddpm", depth=1, width=8)
    flow = HeadConfig(kind="flow", depth=1, width=8)
    steps, times = draw_times(ddpm, 5000, generator), draw_times(flow, 5000, generator)
    assert steps.min() >= 0
    assert 990 < steps.max() <= 999
    assert 0 < times.min() < times.max() < 1


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_stratified_times_spread_a_tokens_draws_and_keep_the_mean(kind: str) -> None:
    plain = HeadConfig(kind=kind, depth=1, width=8, batch_multiplier=4)  # type: ignore[arg-type]
    spread = plain.model_copy(update={"stratified": True})
    one, other = (
        draw_times(config, 40_000, torch.Generator().manual_seed(0)).double().view(-1, 4)
        for config in (plain, spread)
    )
    assert other.mean().item() == pytest.approx(one.mean().item(), rel=1e-2)
    assert (other.diff(dim=1) >= 0).all()
    assert other.mean(1).var() < 0.2 * one.mean(1).var()


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_times_that_draws_share_are_stratified_as_well(kind: str) -> None:
    values = {"kind": kind, "depth": 1, "width": 8, "stratified": True}
    shared = HeadConfig(batch_multiplier=6, noises_per_time=3, **values)  # type: ignore[arg-type]
    plain = HeadConfig(batch_multiplier=2, **values)  # type: ignore[arg-type]
    one, other = (
        draw_times(config, 1000 * config.batch_multiplier, torch.Generator().manual_seed(0))
        for config in (shared, plain)
    )
    assert len(one) == 2000
    assert torch.equal(one, other)
    low, high = one.view(-1, 2).unbind(1)
    assert low.max() <= high.min()


def losses_and_gradients(
    head: DiffusionHead, x: Tensor, condition: Tensor, t: Tensor, noise: Tensor
) -> list[Tensor]:
    condition = condition.clone().requires_grad_()
    mse, vb = head.losses(x, condition, t, noise)
    weights = 1 + torch.arange(len(mse)) / len(mse)
    wanted = [condition, *head.parameters()]
    return [mse, vb, *torch.autograd.grad(((mse + vb) * weights).mean(), wanted)]


def outspoken(config: HeadConfig, token_dim: int = 6, condition_width: int = 12) -> DiffusionHead:
    torch.manual_seed(0)
    head = DiffusionHead(config, token_dim, condition_width)
    torch.nn.init.normal_(head.net.final.linear.weight)
    return head


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize(("times", "noises"), [(1, 4), (2, 2), (2, 3), (4, 1)])
def test_draws_that_share_a_time_equal_draws_that_repeat_it(
    kind: str, times: int, noises: int
) -> None:
    values = {"kind": kind, "depth": 2, "width": 16, "batch_multiplier": times * noises}
    head = outspoken(HeadConfig(noises_per_time=noises, **values))  # type: ignore[arg-type]
    x, condition, noise = torch.randn(5, 6), torch.randn(5, 12), torch.randn(5 * times * noises, 6)
    t = draw_times(head.config, len(noise), torch.Generator().manual_seed(1))
    shared = losses_and_gradients(head, x, condition, t, noise)
    repeated = repeat(t, "t -> (t n)", n=noises)
    plain = losses_and_gradients(head, x, condition, repeated, noise)
    for one, other in zip(shared, plain, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_over_all_times_shared_ones_have_the_loss_and_gradient_of_independent_ones() -> None:
    steps, (x, condition, noise) = 3, (torch.randn(1, 6), torch.randn(1, 12), torch.randn(2, 6))
    head = outspoken(HeadConfig(depth=1, width=16, batch_multiplier=2, diffusion_steps=steps))
    shared, independent = (
        [
            losses_and_gradients(head, x, condition, torch.tensor(t), noise)
            for t in product(range(steps), repeat=times)
        ]
        for times in (1, 2)
    )
    for one, other in zip(zip(*shared, strict=True), zip(*independent, strict=True), strict=True):
        means = [torch.stack(values).mean(0) for values in (one, other)]
        assert torch.allclose(*means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_no_tokens_have_no_losses(kind: str) -> None:
    head = outspoken(HeadConfig(kind=kind, depth=1, width=16))  # type: ignore[arg-type]
    x, condition, noise = torch.zeros(0, 6), torch.zeros(0, 12), torch.zeros(0, 6)
    t = draw_times(head.config, 0, torch.Generator().manual_seed(0))
    for found in head.losses(x, condition, t, noise):
        assert found.shape == (0,)


def test_noises_a_time_that_do_not_divide_the_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="noises_per_time 3 must divide batch_multiplier 4"):
        HeadConfig(batch_multiplier=4, noises_per_time=3)
    for noises in (1, 2, 4):
        config = HeadConfig(batch_multiplier=4, noises_per_time=noises)
        assert HeadConfig.model_validate_json(config.model_dump_json()) == config
        assert config.times_per_token * noises == 4


def test_more_draws_than_steps_change_no_loss() -> None:
    """Steps are then embedded once each; a few rows at a time are embedded one by one."""
    torch.manual_seed(0)
    head = DiffusionHead(HeadConfig(depth=1, width=16, diffusion_steps=8), 6, 12)
    torch.nn.init.normal_(head.net.final.linear.weight)
    x, condition, noise = torch.randn(10, 6), torch.randn(10, 12), torch.randn(30, 6)
    t = torch.arange(30) % 8
    together = head.losses(x, condition, t, noise)
    for row in range(10):
        draws = slice(3 * row, 3 * row + 3)
        alone = head.losses(x[row : row + 1], condition[row : row + 1], t[draws], noise[draws])
        for one, other in zip(together, alone, strict=True):
            assert torch.allclose(one[draws], other, rtol=1e-4, atol=1e-5)
