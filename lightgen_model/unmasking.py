"""How much is hidden, as plain numbers: for a sampler's plan and for counting work.

In:    counts of tokens, names of distributions.
Out:   numbers; neither torch nor numpy is loaded, so that a plan costs nothing.

Source: MaskGIT (arXiv 2202.04200) for the cosine, MAR (2406.11838) for the truncated normal.
"""

import math

RATIO_SIGMA = 0.25  # of the truncated normal with mode 1.0 (MAR)
DISTRIBUTIONS = ("truncated_normal", "uniform", "cosine")


def tokens_left(num_masked: int, num_iterations: int) -> list[int]:
    """Masked tokens after each iteration of the cosine schedule; the last is 0 (MaskGIT).

    `num_masked` is the initial count, so the same schedule serves inpainting (lightgen.md 3.2).
    """
    if not 1 <= num_iterations <= num_masked:
        raise ValueError(
            f"{num_iterations} iterations for {num_masked} tokens; allowed: 1 to {num_masked}"
        )
    left, counts = num_masked, []
    for step in range(num_iterations - 1):
        wanted = math.floor(num_masked * math.cos(math.pi / 2 * (step + 1) / num_iterations))
        left = max(1, min(wanted, left - 1))  # at least one token a step
        counts.append(left)
    return [*counts, 0]


def expected_ratio(distribution: str, min_ratio: float) -> float:
    """The mean of the mask ratios that `masking.mask_ratios` draws, in closed form."""
    if distribution == "uniform":
        return (min_ratio + 1) / 2
    if distribution == "cosine":
        return min_ratio + (1 - min_ratio) * 2 / math.pi
    if distribution == "truncated_normal":
        low = (min_ratio - 1) / RATIO_SIGMA
        if low == 0:
            return 1.0
        inside = -math.erf(low / math.sqrt(2)) / 2  # of the normal's area, low to its mode
        density = [math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (low, 0.0)]
        return 1 + RATIO_SIGMA * (density[0] - density[1]) / inside
    raise unknown_distribution(distribution)


def unknown_distribution(name: str) -> ValueError:
    return ValueError(f"mask distribution {name!r}; allowed: {', '.join(DISTRIBUTIONS)}")
