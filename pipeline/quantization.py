"""Text states in eight bits: whole numbers with one scale for each group of channels of a token.

In:    float states (..., E).
Out:   int8 values (..., E) and float16 scales (..., G), G = E / the group's width; and back.
Rerun: the same states give the same bits.

A group holds at most 128 neighbouring channels, so that a channel with large values costs its 127
neighbours precision and not the whole token. The scale is the group's largest magnitude over 127.
"""

import math
from typing import TYPE_CHECKING

from einops import rearrange

if TYPE_CHECKING:
    # Torch is loaded by whoever has a tensor; what only asks for sizes needs none.
    from torch import Tensor

GROUP = 128  # channels
LEVELS = 127


def group_of(width: int) -> int:
    """Channels that share a scale: 128, or what of it divides the width."""
    return math.gcd(width, GROUP)


def quantized(states: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Values int8 (..., E) and scales float16 (..., G).

    A state beyond what float16 scales, or that is no number, leaves a scale that is not finite.
    """
    grouped = rearrange(states.float(), "... (g c) -> ... g c", c=group_of(states.shape[-1]))
    scales = (grouped.abs().amax(-1) / LEVELS).half()
    # A group of zeros, or of less than float16 can say, is zeros.
    divisors = scales.float().masked_fill(scales == 0, math.inf)
    values = (grouped / divisors.unsqueeze(-1)).round().clamp(-LEVELS, LEVELS)
    return rearrange(values, "... g c -> ... (g c)").char(), scales


def restored(values: "Tensor", scales: "Tensor") -> "Tensor":
    """States float32 (..., E) from values (..., E) and scales (..., G)."""
    grouped = rearrange(values.float(), "... (g c) -> ... g c", g=scales.shape[-1])
    return rearrange(grouped * scales.float().unsqueeze(-1), "... g c -> ... (g c)")


def relative_errors(states: "Tensor", stored: "Tensor") -> "Tensor":
    """Of each row (B, ...) the root mean square of the difference over that of the states."""
    difference = (states - stored).square().flatten(1).sum(1)
    return (difference / states.square().flatten(1).sum(1).clamp(min=1e-30)).sqrt()
