"""The solvers against exact cases and against diffusers' schedulers on the same betas."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from lightgen_model.config import SOLVERS, HeadConfig, SamplingConfig, Solver
from lightgen_model.diffusion import Ddpm
from lightgen_model.solvers import ancestral, ddim, dpm2m, num_noises, solution

EVERY_SOLVER = [(kind, solver) for kind, solvers in SOLVERS.items() for solver in solvers]
POINT = torch.tensor([[0.5, -1.0, 2.0]])
MEAN, SPREAD = 0.7, 0.5  # of a Gaussian target


def head(kind: str, shift: float = 0.0) -> HeadConfig:
    return HeadConfig(kind=kind, depth=1, width=8, time_shift=shift)  # type: ignore[arg-type]


def stream(*shape: int, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return iter(lambda: torch.randn(*shape, generator=generator), None)


def exact_noise(x: Tensor, abar: float, mean: Tensor | float, spread: float) -> Tensor:
    """E[noise | x] where the data are Gaussian."""
    share = math.sqrt(1 - abar) / (abar * spread**2 + 1 - abar)
    return share * (x - math.sqrt(abar) * mean)


def exact(
    kind: str, times: Tensor, mean: Tensor | float, spread: float
) -> Callable[[Tensor, int], Tensor]:
    """The best network for a Gaussian target; its variance is the smaller of the two."""
    abar = Ddpm.cosine(1000).alphas_bar.tolist()

    def ddpm(x: Tensor, step: int) -> Tensor:
        noise = exact_noise(x, abar[int(times[step])], mean, spread)
        return torch.cat([noise, -torch.ones_like(x)], dim=-1)

    def flow(x: Tensor, step: int) -> Tensor:
        t = float(times[step])
        total = ((1 - t) * spread) ** 2 + t**2
        gain = (t - (1 - t) * spread**2) / total  # Cov(noise - data, x_t) / Var(x_t)
        return -mean + gain * (x - (1 - t) * mean)

    return ddpm if kind == "ddpm" else flow


def drawn(kind: str, solver: Solver, num_steps: int, rows: int, shift: float = 0.0) -> Tensor:
    steps = solution(head(kind, shift), solver, num_steps)
    return steps.draw(exact(kind, steps.times, MEAN, SPREAD), stream(rows, 1), 1.0)


@pytest.mark.parametrize(("kind", "solver"), EVERY_SOLVER)
def test_every_solver_finds_a_single_point(kind: str, solver: Solver) -> None:
    steps = solution(head(kind, shift=1.0), solver, 50)
    out = steps.draw(exact(kind, steps.times, POINT, 0.0), stream(4, 3), 1.0)
    assert torch.allclose(out, POINT.expand(4, 3), atol=1e-2)


@pytest.mark.parametrize("num_steps", [1, 4, 25])
def test_straight_paths_take_any_number_of_euler_steps(num_steps: int) -> None:
    steps = solution(head("flow", shift=1.0), "euler", num_steps)
    out = steps.draw(exact("flow", steps.times, POINT, 0.0), stream(5, 3), 1.0)
    assert torch.allclose(out, POINT.expand(5, 3), atol=1e-5)


@pytest.mark.parametrize(("kind", "solver"), EVERY_SOLVER)
def test_every_solver_draws_a_gaussian(kind: str, solver: Solver) -> None:
    out = drawn(kind, solver, 100, 20_000)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert out.std().item() == pytest.approx(SPREAD, abs=0.02)


@pytest.mark.parametrize(("kind", "solver"), [("ddpm", "dpm2m"), ("flow", "heun")])
def test_the_higher_order_is_higher(kind: str, solver: Solver) -> None:
    """Distance from many steps: a few steps of second order beat as many of first."""

    def error(name: Solver, num_steps: int) -> float:
        return (drawn(kind, name, num_steps, 500) - limit).abs().mean().item()

    first: Solver = "ddim" if kind == "ddpm" else "euler"
    limit = drawn(kind, first, 1000, 500)
    assert error(solver, 20) < error(first, 20) / 3


def test_heun_gains_four_times_from_half_the_step() -> None:
    limit = drawn("flow", "heun", 512, 200)
    errors = [(drawn("flow", "heun", n, 200) - limit).abs().mean().item() for n in (16, 32)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)


def test_fewer_steps_are_spent_where_noise_is_left() -> None:
    kept = solution(head("ddpm"), "dpm2m", 4).times.tolist()
    assert kept == [999, 749, 499, 249]
    assert solution(head("ddpm"), "ancestral", 4).times.tolist() == [999, 666, 333, 0]
    assert solution(head("flow"), "euler", 4).times.tolist() == [1, 0.75, 0.5, 0.25]


def test_noise_is_asked_for_only_where_it_is_needed() -> None:
    for kind, solver in EVERY_SOLVER:
        steps = solution(head(kind), solver, 7)
        noises = iter([torch.zeros(2, 1)] * num_noises(solver, 7))
        steps.draw(exact(kind, steps.times, MEAN, SPREAD), noises, 1.0)
        assert next(noises, None) is None


@pytest.mark.parametrize(("kind", "solver"), EVERY_SOLVER)
def test_no_temperature_takes_the_noise_away(kind: str, solver: Solver) -> None:
    def draw(seed: int) -> Tensor:
        steps = solution(head(kind), solver, 10)
        noises = stream(3, 1, seed=seed)
        if solver == "ancestral":  # its first noise is as it is (lightgen.md 3.1)
            noises = iter([torch.ones(3, 1), *[next(noises) for _ in range(9)]])
        return steps.draw(exact(kind, steps.times, MEAN, SPREAD), noises, 0.0)

    assert torch.equal(draw(0), draw(1))


# --- against diffusers ------------------------------------------------------------------------


def prediction(x: Tensor, step: int) -> Tensor:
    """Some network: bounded, different at each step."""
    noise = torch.sin(x + 0.3 * step)
    return torch.cat([noise, torch.cos(2 * x + step)], dim=-1)


def started() -> Tensor:
    return next(stream(6, 4, seed=3))


BETAS = torch.linspace(1e-3, 0.3, 20, dtype=torch.float64)  # mild: diffusers works in float32
MILD = Ddpm(BETAS, torch.arange(20))


def theirs(scheduler: Any, **options: Any) -> Tensor:
    """What a diffusers scheduler makes of `prediction`."""
    walk = scheduler(trained_betas=BETAS.tolist(), num_train_timesteps=20, **options)
    if scheduler is DPMSolverMultistepScheduler:  # its own steps leave out the cleanest
        walk.set_timesteps(timesteps=list(range(19, -1, -1)))
    else:
        walk.set_timesteps(20)
    learned = walk.config.get("variance_type") == "learned_range"
    width = 8 if learned else 4
    more = {"generator": torch.Generator().manual_seed(5)} if learned else {}
    x = started()
    for step, t in enumerate(walk.timesteps):
        x = walk.step(prediction(x, step)[:, :width], t, x, **more).prev_sample
    return x


def test_ddim_agrees_with_diffusers() -> None:
    expected = theirs(DDIMScheduler, clip_sample=False)
    assert torch.allclose(ddim(prediction, started(), MILD), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__")  # diffusers under numpy 2
def test_dpm2m_agrees_with_diffusers() -> None:
    expected = theirs(DPMSolverMultistepScheduler, final_sigmas_type="zero")
    assert torch.allclose(dpm2m(prediction, started(), MILD), expected, atol=1e-4)


def test_ancestral_sampling_agrees_with_diffusers() -> None:
    expected = theirs(DDPMScheduler, clip_sample=False, variance_type="learned_range")
    noises = itertools.chain([started()], stream(6, 4, seed=5))
    assert torch.allclose(ancestral(prediction, noises, MILD, 1.0), expected, atol=1e-4)


def test_held_ancestral_sampling_agrees_with_diffusers() -> None:
    held = {"clip_sample": True, "clip_sample_range": 0.8}
    expected = theirs(DDPMScheduler, variance_type="learned_range", **held)
    noises = itertools.chain([started()], stream(6, 4, seed=5))
    assert torch.allclose(ancestral(prediction, noises, MILD, 1.0, 0.8), expected, atol=1e-4)
    noises = itertools.chain([started()], stream(6, 4, seed=5))
    assert not torch.allclose(ancestral(prediction, noises, MILD, 1.0), expected, atol=1e-2)


@pytest.mark.parametrize("solver", SOLVERS["ddpm"])
def test_a_limit_holds_the_tokens_of_a_rough_head(solver: Solver) -> None:
    """Noise that is wrong in the second digit at the first steps is thousands of times the data."""

    def draw(limit: float | None, rough: bool = True) -> Tensor:
        steps = solution(head("ddpm"), solver, 20, limit)
        net = prediction if rough else exact("ddpm", steps.times, POINT, 0.0)
        return steps.draw(net, stream(4, 3), 1.0)

    assert draw(None).abs().max() > 100
    assert draw(2.5).abs().max() <= 2.5
    assert torch.allclose(draw(100.0, rough=False), draw(None, rough=False), atol=1e-3)


def test_a_limit_is_of_ddpm_alone_and_unseen_where_there_is_none() -> None:
    assert "token_limit" not in SamplingConfig().model_dump()
    assert SamplingConfig(token_limit=4.0).model_dump(mode="json")["token_limit"] == 4.0
    SamplingConfig(token_limit=4.0).check(head("ddpm"), 64)
    with pytest.raises(ValueError, match=r"token_limit: 4\.0 does not fit a flow head"):
        SamplingConfig(token_limit=4.0, head_steps=25).check(head("flow"), 64)
