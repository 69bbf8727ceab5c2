"""The two noise processes of the head: the published DDPM and a flow-matching one.

Both are pure functions of tensors around a callable `net(x, t) -> prediction`; noise is an
argument, so that nothing here owns randomness. How tokens are drawn is in `solvers.py`.

Shapes: T tokens, D dims a token. Units: t is 0..steps-1 for DDPM, 0 (data)..1 (noise) for flow.
Source: improved DDPM (arXiv 2102.09672) with the constants of lightgen.md 1.4; rectified flow with
logit-normal t (arXiv 2403.03206).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

Net = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Ddpm:
    """Squared-cosine schedule, noise prediction, learned range variance.

    Tables are made once, on the host and in float64: 1 - abar at the first steps loses its digits
    in float32.
    """

    betas: Tensor  # (S,) float64
    timesteps: Tensor  # (S,) original step of each respaced one

    @staticmethod
    @lru_cache(maxsize=8)  # asked for in every training step and every iteration of drawing
    def cosine(num_steps: int) -> "Ddpm":
        betas = torch.tensor(_cosine_betas(num_steps), dtype=torch.float64, device="cpu")
        return Ddpm(betas, torch.arange(num_steps, device="cpu"))

    def respaced(self, num_steps: int) -> "Ddpm":
        """Keep `num_steps` evenly strided steps, the first and the last among them (published)."""
        stride = (len(self.betas) - 1) / max(num_steps - 1, 1)
        return self._kept([round(i * stride) for i in range(num_steps)])

    def trailing(self, num_steps: int) -> "Ddpm":
        """Keep the last step of each of `num_steps` equal parts (arXiv 2305.08891): none is spent
        on the noise that step 0 has left. For solvers that end without noise."""
        part = len(self.betas) / num_steps
        return self._kept([round((i + 1) * part) - 1 for i in range(num_steps)])

    def _kept(self, steps: list[int]) -> "Ddpm":
        """The schedule of these steps alone, with betas of their own."""
        if not 1 <= len(steps) <= len(self.betas):
            raise ValueError(f"{len(steps)} head steps; allowed: 1 to {len(self.betas)}")
        kept = torch.tensor(steps, device="cpu")
        abar = self.alphas_bar[kept]
        previous = torch.cat([abar.new_ones(1), abar[:-1]])
        return Ddpm(1 - abar / previous, self.timesteps[kept])

    @cached_property
    def alphas_bar(self) -> Tensor:
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def alphas_bar_previous(self) -> Tensor:
        return torch.cat([self.betas.new_ones(1), self.alphas_bar[:-1]])

    @cached_property
    def signal(self) -> Tensor:
        """Weight of x_0 in x_t."""
        return self.alphas_bar.sqrt()

    @cached_property
    def spread(self) -> Tensor:
        """Weight of the noise in x_t."""
        return (1 - self.alphas_bar).sqrt()

    @cached_property
    def log_betas(self) -> Tensor:
        return torch.log(self.betas)

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        variance = self.betas * (1 - self.alphas_bar_previous) / (1 - self.alphas_bar)
        # The first is zero; the second stands in for it, as in the published code.
        return torch.log(torch.cat([variance[1:2], variance[1:]]))

    @cached_property
    def posterior_mean_coefficients(self) -> tuple[Tensor, Tensor]:
        """Weights of (x_0, x_t) in the mean of q(x_{t-1} | x_t, x_0)."""
        abar, previous = self.alphas_bar, self.alphas_bar_previous
        of_start = self.betas * previous.sqrt() / (1 - abar)
        of_current = (1 - previous) * (1 - self.betas).sqrt() / (1 - abar)
        return of_start, of_current

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return _at(self.signal, t, x) * x + _at(self.spread, t, x) * noise

    def losses(self, net: Net, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise error and variational term per token, (T,) each; their sum is trained."""
        noisy = self.noised(x, t, noise)
        out = net(noisy, self.timesteps.to(t.device)[t].to(x.dtype)).float()
        predicted, variance = out.chunk(2, dim=-1)
        mse = (noise - predicted).square().mean(-1)
        # The mean is detached: the bound trains the variance only.
        vb = self._bound(x, noisy, t, predicted.detach(), variance)
        return mse, vb

    def _bound(self, x: Tensor, noisy: Tensor, t: Tensor, predicted: Tensor, v: Tensor) -> Tensor:
        true_mean = self._mean(x, noisy, t)
        true_log_variance = _at(self.posterior_log_variance, t, x)
        mean = self._mean(self._start(noisy, t, predicted), noisy, t)
        log_variance = self._log_variance(v, t)
        kl = 0.5 * (
            log_variance
            - true_log_variance
            + torch.exp(true_log_variance - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
            - 1
        )
        nll = -_discretised_gaussian(x, mean, 0.5 * log_variance)
        first = (t == 0)[:, None]
        return torch.where(first, nll, kl).mean(-1) / math.log(2)

    def _mean(self, start: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        of_start, of_current = self.posterior_mean_coefficients
        return _at(of_start, t, noisy) * start + _at(of_current, t, noisy) * noisy

    def _start(self, noisy: Tensor, t: Tensor, predicted: Tensor) -> Tensor:
        return (noisy - _at(self.spread, t, noisy) * predicted) / _at(self.signal, t, noisy)

    def _log_variance(self, v: Tensor, t: Tensor) -> Tensor:
        low = _at(self.posterior_log_variance, t, v)
        high = _at(self.log_betas, t, v)
        share = (v + 1) / 2
        return share * high + (1 - share) * low


def _cosine_betas(num_steps: int) -> list[float]:
    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return [
        min(1 - level((i + 1) / num_steps) / level(i / num_steps), 0.999) for i in range(num_steps)
    ]


def _at(values: Tensor, t: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device)[t].to(like.dtype)[:, None]


def _discretised_gaussian(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-likelihood of 1/255-wide bins: a pixel-space leftover that the published loss keeps."""

    def cdf(u: Tensor) -> Tensor:  # tanh approximation, as published
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))

    centred, inverse = x - mean, torch.exp(-log_scale)
    upper, lower = cdf(inverse * (centred + 1 / 255)), cdf(inverse * (centred - 1 / 255))
    inside = torch.where(x > 0.999, 1 - lower, upper - lower)
    return torch.log(torch.where(x < -0.999, upper, inside).clamp(min=1e-12))


# --- flow matching ----------------------------------------------------------------------------


def uniforms(num: int, strata: int, generator: torch.Generator) -> Tensor:
    """Uniform draws in (0, 1), float64; each run of `strata` has one in each equal part."""
    part = torch.arange(num, dtype=torch.float64) % strata
    return ((part + torch.rand(num, generator=generator, dtype=torch.float64)) / strata).clamp(
        1e-9, 1 - 1e-9
    )


def flow_times(num: int, shift: float, strata: int, generator: torch.Generator) -> Tensor:
    """Logit-normal t; `shift` > 0 moves the mass towards noise, where words are decided."""
    normal = torch.special.ndtri(uniforms(num, strata, generator))
    return torch.sigmoid(normal + shift).float()


def flow_loss(net: Net, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Velocity error per token (T,), for x_t = (1 - t) x + t noise."""
    time = t[:, None]
    velocity = net((1 - time) * x + time * noise, t).float()
    return (noise - x - velocity).square().mean(-1)
