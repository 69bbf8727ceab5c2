"""Masked-autoregressive sampling: text in, latents out (arXiv 2406.11838, section 4).

In:    a student, text states with lengths, one seed a picture.
Out:   normalised latents (B, c, h, w).

A picture is a function of its own (text, seed) and not of its batch, to float tolerance: order and
noise come from a generator of its own. Exact savings of lightgen.md section 0: encoder and decoder
run once for both guidance halves, cross blocks and head only on the tokens predicted now, and the
null text is one key.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightgen_model.masking import tokens_left
from lightgen_model.model import LightGen, Text


@torch.inference_mode()
def sample(
    model: LightGen,
    states: Tensor,
    lengths: Tensor,
    *,
    image_size: int,
    num_iterations: int,
    head_steps: int,
    guidance: float,
    seeds: Sequence[int],
    guidance_schedule: str = "constant",
    temperature: float = 1.0,
) -> Tensor:
    """Draw one picture a row of `states` (B, L, E). Returns normalised latents (B, c, h, w)."""
    if len(seeds) != len(states):
        raise ValueError(f"{len(seeds)} seeds for {len(states)} captions; one a picture")
    side = model.config.grid(image_size)
    grid, num_tokens = (side, side), side * side
    device, batch = states.device, len(states)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    order = torch.stack([torch.randperm(num_tokens, generator=g) for g in generators]).to(device)
    tokens = torch.zeros(batch, num_tokens, model.config.token_dim, device=device)
    mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
    text = model.align(states, lengths)
    already = num_tokens
    for left in tokens_left(num_tokens, num_iterations):
        # The front of the order stays masked longest.
        index = order[:, left:already]  # (B, n) predicted now
        scale = _guidance_at(guidance, guidance_schedule, num_tokens, left)
        hidden = model.decode(model.encode(tokens, mask, grid), mask, grid)
        drawn = _draw(model, hidden, text, index, grid, generators, head_steps, scale, temperature)
        tokens = tokens.scatter(1, index[:, :, None].expand_as(drawn), drawn)
        mask = mask.scatter(1, index, torch.zeros_like(index, dtype=torch.bool))
        already = left
    return model.unpatchify(tokens, grid)


def _guidance_at(guidance: float, schedule: str, num_tokens: int, left: int) -> float:
    if schedule == "constant":
        return guidance
    if schedule == "linear":
        return 1 + (guidance - 1) * (num_tokens - left) / num_tokens
    raise ValueError(f"guidance schedule {schedule!r}; allowed: constant, linear")


def _draw(
    model: LightGen,
    hidden: Tensor,
    text: Text,
    index: Tensor,
    grid: tuple[int, int],
    generators: Sequence[torch.Generator],
    head_steps: int,
    guidance: float,
    temperature: float,
) -> Tensor:
    """Draw the tokens at `index` (B, n): (B, n, D)."""
    batch, count = index.shape
    dim = model.config.token_dim
    condition = model.condition(hidden, text, index, grid).flatten(0, 1)  # (B n, C)
    null = None
    if guidance != 1.0:
        null = model.condition(hidden, model.null(batch), index, grid).flatten(0, 1)

    def noise() -> Iterator[Tensor]:
        while True:
            rows = [torch.randn(count, dim, generator=g) for g in generators]
            yield torch.cat(rows).to(hidden.device)

    drawn = model.head.sample(
        condition, null, noise(), num_steps=head_steps, guidance=guidance, temperature=temperature
    )
    return drawn.view(batch, count, dim)
