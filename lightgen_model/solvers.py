"""From noise to a token: the solvers of the head's two noise processes.

In:    a network `net(x, step)`, step 0 the noisiest; a stream of noises (T, D).
Out:   tokens (T, D).

All coefficients are floats on the host, from float64: a step waits for nothing and moves nothing
to the device. Shapes: T tokens, D dims a token, S steps.
Source: ancestral sampling with learned variance (arXiv 2102.09672), DDIM (2010.02502),
DPM-Solver++ of second order with two points (2211.01095, algorithm 2), Heun as in EDM (2206.00364).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, Solver
from lightgen_model.diffusion import Ddpm

StepNet = Callable[[Tensor, int], Tensor]
NoiseStream = Iterator[Tensor]


@dataclass(frozen=True)
class Solution:
    """One solver with its number of steps."""

    times: Tensor  # (S,) what the network reads at each step, in the units of the process
    draw: Callable[[StepNet, NoiseStream, float], Tensor]  # (net, noise, temperature) -> tokens


def solution(
    head: HeadConfig, solver: Solver, num_steps: int, limit: float | None = None
) -> Solution:
    """The steps of a solver; ValueError where the process has fewer. `limit` is for DDPM's."""
    if head.kind == "flow":
        grid = flow_grid(num_steps, head.time_shift)
        walk = {"euler": euler, "heun": heun}[solver]
        return Solution(
            torch.tensor(grid[:-1], dtype=torch.float64),
            lambda net, noise, temperature: walk(net, next(noise) * temperature, grid),
        )
    schedule = Ddpm.cosine(head.diffusion_steps)
    if solver == "ancestral":
        ddpm = schedule.respaced(num_steps)
        return Solution(
            ddpm.timesteps.flip(0),
            lambda net, noise, temperature: ancestral(net, noise, ddpm, temperature, limit),
        )
    ddpm, solve = schedule.trailing(num_steps), {"ddim": ddim, "dpm2m": dpm2m}[solver]
    return Solution(
        ddpm.timesteps.flip(0),
        lambda net, noise, temperature: solve(net, next(noise) * temperature, ddpm, limit),
    )


def num_noises(solver: Solver, num_steps: int) -> int:
    """Noises that a solver asks for: the first, and one a step but the last where it adds any."""
    return num_steps if solver == "ancestral" else 1


# --- DDPM -------------------------------------------------------------------------------------


def ancestral(
    net: StepNet,
    noise: NoiseStream,
    ddpm: Ddpm,
    temperature: float,
    limit: float | None = None,
) -> Tensor:
    """`net` gives noise and variance (T, 2 D). Temperature scales every noise that is added, but
    not the first; none is added in the last step (lightgen.md 3.1)."""
    of_start, of_current = (values.tolist() for values in ddpm.posterior_mean_coefficients)
    log_betas, log_variances = ddpm.betas.log().tolist(), ddpm.posterior_log_variance.tolist()
    abar = ddpm.alphas_bar.tolist()
    x = next(noise)
    for step, s in enumerate(reversed(range(len(abar)))):
        predicted, variance = net(x, step).chunk(2, dim=-1)
        x = of_start[s] * _start(x, predicted, abar[s], limit) + of_current[s] * x
        if s:
            share = (variance + 1) / 2
            log_variance = share * log_betas[s] + (1 - share) * log_variances[s]
            x = x + torch.exp(0.5 * log_variance) * next(noise) * temperature
    return x


def ddim(net: StepNet, x: Tensor, ddpm: Ddpm, limit: float | None = None) -> Tensor:
    """Without added noise (eta 0); the variance that `net` gives is not used."""
    abar, before = ddpm.alphas_bar.tolist(), ddpm.alphas_bar_previous.tolist()
    for step, s in enumerate(reversed(range(len(abar)))):
        predicted = net(x, step).chunk(2, dim=-1)[0]
        start = _start(x, predicted, abar[s], limit)
        if limit is not None:  # the noise that the held token implies
            predicted = (x - math.sqrt(abar[s]) * start) / math.sqrt(1 - abar[s])
        x = math.sqrt(before[s]) * start + math.sqrt(1 - before[s]) * predicted
    return x


def dpm2m(net: StepNet, x: Tensor, ddpm: Ddpm, limit: float | None = None) -> Tensor:
    """Second order in the log signal-to-noise ratio; the first and the last step are of first."""
    abar, before = ddpm.alphas_bar.tolist(), ddpm.alphas_bar_previous.tolist()
    earlier, last_width = x, 0.0
    for step, s in enumerate(reversed(range(len(abar)))):
        start = _start(x, net(x, step).chunk(2, dim=-1)[0], abar[s], limit)
        if s == 0:
            return start
        width = _half_log_snr(before[s]) - _half_log_snr(abar[s])
        guess = start
        if step:
            guess = start + (start - earlier) * (width / last_width / 2)
        keep = math.sqrt((1 - before[s]) / (1 - abar[s]))
        x = keep * x - math.sqrt(before[s]) * math.expm1(-width) * guess
        earlier, last_width = start, width
    raise AssertionError("a schedule has at least one step")


def _start(x: Tensor, predicted: Tensor, abar: float, limit: float | None) -> Tensor:
    """The clean token that a predicted noise implies, held within +- `limit`."""
    start = (x - math.sqrt(1 - abar) * predicted) / math.sqrt(abar)
    return start if limit is None else start.clamp(-limit, limit)


def _half_log_snr(abar: float) -> float:
    return 0.5 * (math.log(abar) - math.log1p(-abar))


# --- flow matching ----------------------------------------------------------------------------


def flow_grid(num_steps: int, shift: float) -> list[float]:
    """S + 1 times from 1 (noise) to 0 (data), exp(shift) times denser near the noise."""
    stretch = math.exp(shift)
    uniform = [1 - step / num_steps for step in range(num_steps + 1)]
    return [stretch * u / (1 + (stretch - 1) * u) for u in uniform]


def euler(net: StepNet, x: Tensor, times: list[float]) -> Tensor:
    """One velocity a step."""
    for step, (now, after) in enumerate(pairwise(times)):
        x = x + (after - now) * net(x, step)
    return x


def heun(net: StepNet, x: Tensor, times: list[float]) -> Tensor:
    """Two velocities a step, of second order; the last step is Euler's, since a network is hardly
    trained at time 0."""
    for step, (now, after) in enumerate(pairwise(times)):
        velocity = net(x, step)
        if after:
            velocity = (velocity + net(x + (after - now) * velocity, step + 1)) / 2
        x = x + (after - now) * velocity
    return x
