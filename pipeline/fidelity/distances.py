"""How far two sets of pictures lie apart, from their features: Frechet distance and CMMD.

In:    features (N, D), one row a picture, of an extractor.
Out:   a number; 0 for the same set.
Rerun: the same features give the same number.

- Frechet distance (FID, arXiv 1706.08500): both sets taken as Gaussians,
  |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). The root's trace comes from the symmetric
  S1^(1/2) S2 S1^(1/2), whose eigenvalues are those of S1 S2, real and in a quarter of the time.
- CMMD (arXiv 2401.09603): squared maximum mean discrepancy with a Gaussian kernel of width 10
  between unit CLIP vectors, biased estimate, times 1000.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
AT_ONCE = 2048  # rows of a kernel matrix in memory

Features = NDArray[np.floating]  # (N, D)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a Gaussian keeps of a set."""

    mean: NDArray[np.float64]  # (D,)
    covariance: NDArray[np.float64]  # (D, D)
    number: int


def statistics(features: Features) -> Statistics:
    number = len(features)
    if number < 2:
        raise ValueError(f"{number} pictures have no covariance; 2 or more are needed")
    wide = features.astype(np.float64)
    return Statistics(wide.mean(axis=0), np.atleast_2d(np.cov(wide, rowvar=False)), number)


def frechet(one: Statistics, other: Statistics) -> float:
    """Both of the same extractor: other widths are a ValueError."""
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"features of {one.mean.shape[0]} and {other.mean.shape[0]} numbers: two extractors"
        )
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.linalg.eigvalsh(root @ other.covariance @ root)
    apart = float(np.sum((one.mean - other.mean) ** 2))
    traces = float(np.trace(one.covariance) + np.trace(other.covariance))
    return max(0.0, apart + traces - 2 * float(np.sqrt(np.maximum(shared, 0)).sum()))


def cmmd(one: Features, other: Features) -> float:
    """Of unit vectors (N, D) and (M, D)."""
    if one.shape[1] != other.shape[1]:
        raise ValueError(f"features of {one.shape[1]} and {other.shape[1]} numbers: two extractors")
    within = mean_kernel(one, one) + mean_kernel(other, other)
    return CMMD_SCALE * (within - 2 * mean_kernel(one, other))


def mean_kernel(one: Features, other: Features, sigma: float = CMMD_SIGMA) -> float:
    """The mean of exp(-|x - y|^2 / (2 sigma^2)) over all pairs."""
    x, y = one.astype(np.float64), other.astype(np.float64)
    squares = np.sum(y**2, axis=1)
    total = 0.0
    for first in range(0, len(x), AT_ONCE):
        part = x[first : first + AT_ONCE]
        distances = np.sum(part**2, axis=1)[:, None] + squares - 2 * part @ y.T
        total += float(np.exp(-np.maximum(distances, 0) / (2 * sigma**2)).sum())
    return total / (len(x) * len(y))
