"""The sampler of lightgen.md 3.1 without any saving, to compare with and to measure against.

Both guidance halves go through encoder and decoder, cross blocks see all tokens, the text is
projected anew in each iteration, the null text is repeated over the length of the text, and the
head embeds the time of every row.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightgen_model.config import SamplingConfig
from lightgen_model.head import FLOW_TIME_SCALE
from lightgen_model.model import LightGen
from lightgen_model.solvers import solution
from lightgen_model.unmasking import tokens_left

Tape = Callable[[int], Iterator[Tensor]]  # of an iteration: noises (B, N, D)


@torch.inference_mode()
def plain_sample(
    model: LightGen,
    states: Tensor,
    lengths: Tensor,
    sampling: SamplingConfig,
    orders: Tensor,
    tape: Tape,
    grid: tuple[int, int],
) -> Tensor:
    """Tokens (B, N, D) of all-masked pictures, drawn from the ends of `orders` (B, N)."""
    batch, num_tokens = orders.shape
    text, keep = _texts(model, states, lengths)
    tokens = torch.zeros(batch, num_tokens, model.config.token_dim)
    mask = torch.ones(batch, num_tokens, dtype=torch.bool)
    for step, left in enumerate(tokens_left(num_tokens, sampling.num_iterations)):
        conditions = _conditions(model, tokens.repeat(2, 1, 1), mask.repeat(2, 1), text, keep, grid)
        scale = sampling.guidance_at(left, num_tokens)
        still = torch.zeros_like(mask).scatter(1, orders[:, :left], True)
        now = mask & ~still
        noise = (each[now] for each in tape(step))  # (B * n, D)
        chosen = conditions[now.repeat(2, 1)]  # (2 * B * n, C)
        tokens[now] = _head(model, chosen, noise, sampling, step, scale)
        mask = still
    return tokens


def _texts(model: LightGen, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
    """Text and null text, one after the other: (2 B, L, C)."""
    text = model.align(states, lengths)
    both = torch.cat([text.states, model.null_text.expand_as(text.states)])
    if text.keep is None:
        return both, None
    return both, torch.cat([text.keep, torch.ones_like(text.keep)])


def _conditions(
    model: LightGen,
    tokens: Tensor,
    mask: Tensor,
    text: Tensor,
    keep: Tensor | None,
    grid: tuple[int, int],
) -> Tensor:
    positions = model.positions(grid)
    x = model.encoder_in_norm(model.encoder_in(tokens) + positions.encoder)
    x = x[~mask].view(len(x), -1, x.shape[-1])  # equal counts
    for block in model.encoder_blocks:
        x = block(x)
    hidden = model.mask_token.expand(*mask.shape, -1).clone()
    hidden[~mask] = model.decoder_in(model.encoder_norm(x)).flatten(0, 1)
    hidden = hidden + positions.decoder
    for block in model.decoder_blocks:
        hidden = block(hidden)
    x = model.cross_in(model.decoder_norm(hidden)) + positions.cross
    for block in model.cross_blocks:
        x = block(x, block.project(text), keep)
    return model.cross_norm(x)


def _head(
    model: LightGen,
    conditions: Tensor,
    noise: Iterator[Tensor],
    sampling: SamplingConfig,
    step: int,
    scale: float,
) -> Tensor:
    config, dim = model.config.head, model.config.token_dim
    steps = solution(config, sampling.solver_of(config), sampling.head_steps_at(step))
    times = steps.times * (FLOW_TIME_SCALE if config.kind == "flow" else 1)
    embedded = model.head.net.condition_embed(conditions)

    def net(x: Tensor, step: int) -> Tensor:
        t = times[step].expand(2 * len(x))
        text, null = model.head.net(torch.cat([x, x]), t, embedded).chunk(2)
        base = null[:, :dim]
        return torch.cat([base + scale * (text[:, :dim] - base), text[:, dim:]], dim=-1)

    return steps.draw(net, noise, sampling.temperature)
