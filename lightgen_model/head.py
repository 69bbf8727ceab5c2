"""The per-token diffusion MLP: from a condition to a distribution over one continuous token.

In:    tokens (T, D), conditions (T, C); noise and times come as arguments.
Out:   losses per token, or samples.

Shapes: T tokens, D token dims, C student width, W head width. Source: MAR section 3.2 (arXiv
2406.11838) with the sizes and order of lightgen.md 1.4.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from lightgen_model.config import SOLVERS, TIME_FEATURES, HeadConfig, Solver
from lightgen_model.diffusion import Ddpm, flow_loss, flow_times, uniforms
from lightgen_model.layers import NORM_EPS
from lightgen_model.solvers import NoiseStream, StepNet, solution

# Rows of (step, token) that are modulated at once when drawing. With few tokens a step is bound by
# reading the weights, most of which are modulations'; larger products gain no more.
ROWS_AHEAD = 256
FLOW_TIME_SCALE = 1000  # flow times 0..1 enter the same sinusoid as DDPM's 0..999


def time_features(t: Tensor, size: int = TIME_FEATURES) -> Tensor:
    """Sinusoids of raw t: cosines first, then sines, longest period 10000. (T,) -> (T, size)."""
    half = size // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimeEmbedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(TIME_FEATURES, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        return self.fc2(F.silu(self.fc1(time_features(t).to(self.fc1.weight.dtype))))


class HeadBlock(nn.Module):
    """LayerNorm, modulate, two-layer MLP, gated residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale, gate = modulation.chunk(3, dim=-1)
        hidden = self.norm(x) * (1 + scale) + shift
        return x + gate * self.fc2(F.silu(self.fc1(hidden)))


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(self.norm(x) * (1 + scale) + shift)


class HeadNet(nn.Module):
    """(noisy token, time, condition) -> prediction."""

    def __init__(self, config: HeadConfig, token_dim: int, condition_width: int) -> None:
        super().__init__()
        out = 2 * token_dim if config.kind == "ddpm" else token_dim  # noise and variance | velocity
        self.time_embed = TimeEmbedding(config.width)
        self.condition_embed = nn.Linear(condition_width, config.width)
        self.input = nn.Linear(token_dim, config.width)
        self.blocks = nn.ModuleList(HeadBlock(config.width) for _ in range(config.depth))
        self.final = FinalLayer(config.width, out)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.predict(x, self.time_embed(t) + condition)

    def predict(self, x: Tensor, condition: Tensor) -> Tensor:
        """`condition` (T, W) holds the embedded time, too."""
        return self.denoise(x, self.modulations(condition))

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """(..., W) -> (..., 3 W) a block and (..., 2 W) at the end. They know nothing of x."""
        activated = F.silu(condition)
        return [part.modulation(activated) for part in (*self.blocks, self.final)]

    def denoise(self, x: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        x = self.input(x)
        for block, modulation in zip(self.blocks, modulations[:-1], strict=True):
            x = block(x, modulation)
        return self.final(x, modulations[-1])


def draw_times(config: HeadConfig, num: int, generator: torch.Generator) -> Tensor:
    """Training times of `num` draws, (num / noises_per_time,), on the CPU: integers for DDPM,
    floats in 0..1 for flow."""
    num, strata = num // config.noises_per_time, config.times_per_token if config.stratified else 1
    if config.kind == "flow":
        return flow_times(num, config.time_shift, strata, generator)
    return (uniforms(num, strata, generator) * config.diffusion_steps).long()


class DiffusionHead(nn.Module):
    """The head's loss and its sampler around `HeadNet`."""

    def __init__(self, config: HeadConfig, token_dim: int, condition_width: int) -> None:
        super().__init__()
        self.config, self.token_dim = config, token_dim
        self.net = HeadNet(config, token_dim, condition_width)
        self._compiled_predict: Callable[[Tensor, Tensor], Tensor] | None = None

    def losses(
        self, x: Tensor, condition: Tensor, t: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Squared error and variational term per draw, (T,) each (flow: the latter is zero).

        `x` (M, D) and `condition` (M, C) have a row a token; `noise` (T, D) a row a draw, those of
        one token together; `t` (T / n,) a row for n draws that follow each other. Work is done once
        a token where it depends on neither time nor noise, once a time where not on the noise.
        """
        times = len(t) // len(x) if len(x) else 1
        noises = len(noise) // len(t) if len(t) else 1
        embedded = repeat(self.net.condition_embed(condition), "m c -> (m k) c", k=times)
        modulations = [
            rearrange(part, "t c -> t 1 c")
            for part in self.net.modulations(self._embedded_times(t) + embedded)
        ]

        def net(x: Tensor, t: Tensor) -> Tensor:
            groups = rearrange(x, "(t n) d -> t n d", n=noises)
            return self.net.denoise(groups, modulations).flatten(0, 1)

        x, t = repeat(x, "m d -> (m k) d", k=times * noises), repeat(t, "t -> (t n)", n=noises)
        if self.config.kind == "flow":
            mse = flow_loss(net, x, t, noise)
            return mse, torch.zeros_like(mse)
        return Ddpm.cosine(self.config.diffusion_steps).losses(net, x, t, noise)

    def _embedded_times(self, t: Tensor) -> Tensor:
        """Embeddings (T, W); with more rows than whole steps, each step is made once."""
        if self.config.kind == "flow":
            return self.net.time_embed(t * FLOW_TIME_SCALE)
        num_steps = self.config.diffusion_steps
        if len(t) <= num_steps:
            return self.net.time_embed(t)
        table = self.net.time_embed(torch.arange(num_steps, device=t.device))
        return F.embedding(t, table)

    def sample(
        self,
        condition: Tensor,
        null_condition: Tensor | None,
        noise: NoiseStream,
        *,
        num_steps: int,
        guidance: float | Tensor,
        temperature: float,
        solver: Solver | None = None,
        token_limit: float | None = None,
        compiled: bool = False,
    ) -> Tensor:
        """Draw tokens (T, D), float32, for conditions (T, C).

        Guidance, a number or one a row (T, 1), acts on the predicted noise or velocity; the
        variance is the conditional one. Temperature scales the noise: every added one for
        ancestral sampling, the first and only one for the other solvers.
        """
        solver = solver or SOLVERS[self.config.kind][0]
        steps = solution(self.config, solver, num_steps, token_limit)
        pair = condition if null_condition is None else torch.cat([condition, null_condition])
        embedded = self.net.condition_embed(pair)
        # The time is the same for all rows of a step: one row each, all steps at once.
        scale = FLOW_TIME_SCALE if self.config.kind == "flow" else 1
        times = self.net.time_embed((steps.times * scale).float().to(pair.device))  # (S, W)

        predict = self._predictor(times, embedded, compiled)

        def guided(x: Tensor, step: int) -> Tensor:
            x = x.to(embedded.dtype)
            if null_condition is None:
                return predict(x, step).float()
            out = predict(torch.cat([x, x]), step).float()
            with_text, without = out.chunk(2)
            mean, rest = with_text[:, : self.token_dim], with_text[:, self.token_dim :]
            base = without[:, : self.token_dim]
            return torch.cat([base + guidance * (mean - base), rest], dim=-1)

        return steps.draw(guided, noise, temperature)

    def _predictor(self, times: Tensor, embedded: Tensor, compiled: bool) -> StepNet:
        """The network for rows (T, W) of conditions at any of the steps (S, W), asked in order."""
        if compiled:
            predict = self._compiled(embedded.device)
            return lambda x, step: predict(x, times[step] + embedded)
        ahead = max(1, ROWS_AHEAD // len(embedded))  # steps

        @lru_cache(maxsize=1)
        def modulations(first: int) -> list[Tensor]:
            return self.net.modulations(times[first : first + ahead, None] + embedded)

        def predict_ahead(x: Tensor, step: int) -> Tensor:
            first = step - step % ahead
            return self.net.denoise(x, [part[step - first] for part in modulations(first)])

        return predict_ahead

    def _compiled(self, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
        """The network compiled once for any number of rows.

        On a GPU each number of rows is captured in a CUDA graph: a few rows finish before their
        kernels are launched one by one, and there are num_iterations * num_steps such calls.
        """
        if self._compiled_predict is None:
            mode = "reduce-overhead" if device.type == "cuda" else None
            self._compiled_predict = torch.compile(self.net.predict, dynamic=True, mode=mode)
        return self._compiled_predict
