"""What is hidden, and in which order it is uncovered.

In:    counts, and a `torch.Generator` on the CPU.
Out:   boolean masks and permutations; True means masked (to be predicted).

Shapes: B samples, N tokens. Source: MaskGIT (arXiv 2202.04200) for the cosine, MAR (2406.11838).
"""

import math

import torch
from torch import Tensor

from lightgen_model.unmasking import RATIO_SIGMA, unknown_distribution


def mask_ratios(
    num: int, distribution: str, min_ratio: float, generator: torch.Generator
) -> Tensor:
    """Draw `num` mask ratios in [min_ratio, 1]."""
    uniform = torch.rand(num, generator=generator, dtype=torch.float64)
    if distribution == "uniform":
        return min_ratio + (1 - min_ratio) * uniform
    if distribution == "cosine":  # the ratios that a cosine schedule passes through
        return min_ratio + (1 - min_ratio) * torch.cos(math.pi / 2 * uniform)
    if distribution == "truncated_normal":  # inverse CDF of N(1, 0.25) cut to [min_ratio, 1]
        low = 0.5 * (1 + math.erf((min_ratio - 1) / RATIO_SIGMA / math.sqrt(2)))
        quantile = low + (0.5 - low) * uniform
        return 1 + RATIO_SIGMA * math.sqrt(2) * torch.erfinv(2 * quantile - 1)
    raise unknown_distribution(distribution)


def random_orders(num: int, num_tokens: int, generator: torch.Generator) -> Tensor:
    """One random permutation of the tokens a sample: (num, N)."""
    return torch.rand(num, num_tokens, generator=generator).argsort(dim=1)


def draw_masks(
    num: int,
    num_tokens: int,
    generator: torch.Generator,
    *,
    distribution: str = "truncated_normal",
    min_ratio: float = 0.7,
    per_sample: bool = False,
) -> Tensor:
    """Masks (num, N). The first ceil(N * ratio) places of a random order are masked."""
    ratios = mask_ratios(num if per_sample else 1, distribution, min_ratio, generator)
    counts = masked_counts(ratios, num_tokens).expand(num)
    return masks_of(counts, random_orders(num, num_tokens, generator))


def masked_counts(ratios: Tensor, num_tokens: int) -> Tensor:
    """How many tokens each ratio masks: rounded up, at least one."""
    return torch.ceil(num_tokens * ratios).clamp(1, num_tokens).long()


def masks_of(counts: Tensor, orders: Tensor) -> Tensor:
    """Masks (B, N) of the first `counts` (B,) places of each order (B, N)."""
    return orders.argsort(dim=1) < counts[:, None]
