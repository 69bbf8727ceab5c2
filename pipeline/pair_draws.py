"""What is random about a pair: masks, times and noise that belong to it and to no step.

In:    pair ids and the number of a draw.
Out:   `Draws` for these pairs. Every pair has a generator of its own, named by (seed, draw, pair),
       so that its errors can be measured before and beside any others.

Shapes: B pairs, N tokens, T rows in the head, D token dims.
"""

from collections.abc import Sequence

import torch

from lightgen_model.config import ModelConfig
from lightgen_model.head import draw_times
from lightgen_model.masking import draw_masks
from pipeline.config import MaskingConfig
from pipeline.draws import Draws, generator


def draw_pairs(
    pair_ids: Sequence[str],
    number: int,
    num_tokens: int,
    model: ModelConfig,
    masking: MaskingConfig,
    seed: int,
) -> Draws:
    """Draw `number` of each pair; a pair has its own mask ratio."""
    masks, times, noise = [], [], []
    for pair_id in pair_ids:
        own = generator(seed, number, f"pair {pair_id}")
        mask = draw_masks(
            1, num_tokens, own, distribution=masking.distribution, min_ratio=masking.min_ratio
        )
        rows = int(mask.sum()) * model.head.batch_multiplier
        masks.append(mask)
        times.append(draw_times(model.head, rows, own))
        noise.append(torch.randn(rows, model.token_dim, generator=own))
    drop = torch.zeros(len(masks), dtype=torch.bool)
    total = sum(len(rows) for rows in noise)
    return Draws(torch.cat(masks), drop, torch.cat(times), torch.cat(noise), total)
