"""Text states in eight bits: whole numbers with one scale for each group of channels of a token.

In:    float states (L, E).
Out:   int8 values (L, E) and float16 scales (L, G), G = E / the group's width; and back.
Rerun: the same states give the same bits.

A group holds at most 128 neighbouring channels, so that a channel with large values costs its 127
neighbours precision and not the whole token. The scale is the group's largest magnitude over 127.
"""

import math

import numpy as np
from numpy.typing import NDArray

GROUP = 128  # channels
LEVELS = 127


def group_of(width: int) -> int:
    """Channels that share a scale: 128, or what of it divides the width."""
    return math.gcd(width, GROUP)


def quantized(states: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Values (L, E) and scales (L, G); ValueError where a state is beyond what float16 scales."""
    group = group_of(states.shape[1])
    grouped = states.reshape(len(states), -1, group)  # (L, G, group)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = (np.abs(grouped).max(axis=2) / LEVELS).astype(np.float16)
    if not np.isfinite(scales).all():
        raise ValueError(f"text states up to {np.abs(states).max():.3g} are beyond int8 scales")
    # A group of zeros, or of less than float16 can say, is zeros.
    divisors = np.where(scales == 0, np.inf, scales.astype(np.float32))
    values = np.rint(grouped / divisors[:, :, None]).clip(-LEVELS, LEVELS)
    return values.astype(np.int8).reshape(states.shape), scales


def restored(values: NDArray[np.int8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """States (L, E) from values (L, E) and scales (L, G)."""
    grouped = values.reshape(*scales.shape, -1).astype(np.float32)
    return (grouped * scales.astype(np.float32)[:, :, None]).reshape(values.shape)


def relative_error(states: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """Root mean square of the difference, over that of the states."""
    difference = np.square(states - stored, dtype=np.float64).sum()
    whole = np.square(states, dtype=np.float64).sum()
    return float(np.sqrt(difference / whole)) if whole else 0.0
