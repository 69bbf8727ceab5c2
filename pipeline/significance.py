"""How sure a share of correct pictures is, and whether two checkpoints differ.

In:    which pictures are right, and the prompt of each. Pictures of one prompt are alike, so the
       prompt is the unit: four pictures of it say less than four of different prompts.
Out:   intervals of 95 %; of two checkpoints on the same prompts and seeds the difference, its
       interval and its p value.
Rerun: the same answers give the same numbers: resampling has a fixed seed.

- One task: Wilson's interval at the effective number of pictures (Kish's design effect, between
  the number of prompts and of pictures; the number of prompts where all or none are right).
- Mean over tasks: MOVER, which adds the distances of the tasks' intervals in squares
  (Zou and Donner, 2008); it has width where all tasks are at 0 or 1, and no seed.
- Difference: bootstrap over prompts within each task, and a sign-flip test over prompts: were the
  checkpoints alike, each prompt's difference could as well have the other sign.
- McNemar's exact test over pictures is told beside it; it takes pictures as independent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
SEED = 0
AT_ONCE = 1000  # resamples held in memory
MEAN = "mean"

Right = NDArray[np.bool_]  # (N,) pictures
Prompts = NDArray[np.int64]  # (N,) the prompt of each


@dataclass(frozen=True)
class Interval:
    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:.3f} ({self.low:.3f}–{self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """`after` less `before`, on the same prompts and seeds."""

    before: str
    after: str
    task: str
    difference: float
    low: float
    high: float
    p: float  # sign flips over prompts
    gained: int  # pictures that only `after` has right
    lost: int  # pictures that only `before` has right
    mcnemar_p: float
    prompts: int
    pictures: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(share: float, number: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share of `number` trials; that of none is 0 to 1."""
    if number <= 0:
        return Interval(share, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = share + z * z / (2 * number)
    half = z * np.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    low, high = ((middle + sign * half) / (1 + z * z / number) for sign in (-1, 1))
    # At 0 and 1 the limits are exact; rounding would put them a hair beside.
    return Interval(share, min(max(0.0, float(low)), share), max(min(1.0, float(high)), share))


def share_interval(right: Right, prompts: Prompts, level: float = LEVEL) -> Interval:
    """The share of right pictures of one task."""
    share = float(np.mean(right))
    return wilson(share, effective_number(right, prompts), level)


def effective_number(right: Right, prompts: Prompts) -> float:
    """Independent pictures that would be as sure as these are."""
    sums, counts = _by_prompt(right, prompts)
    share, number = float(np.mean(right)), len(sums)
    if share in (0.0, 1.0) or number < 2:
        return float(number)
    # The variance of a ratio of sums over prompts.
    residuals = sums - share * counts
    variance = number / (number - 1) * float(np.sum(residuals**2)) / float(counts.sum()) ** 2
    if variance == 0:
        return float(counts.sum())
    return float(np.clip(share * (1 - share) / variance, number, counts.sum()))


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """The unweighted mean of independent shares."""
    number = len(intervals)
    mean = sum(each.share for each in intervals) / number
    down = np.sqrt(sum((each.share - each.low) ** 2 for each in intervals)) / number
    up = np.sqrt(sum((each.high - each.share) ** 2 for each in intervals)) / number
    return Interval(mean, float(mean - down), float(mean + up))


# --- two checkpoints ----------------------------------------------------------------------------


def compare(
    names: tuple[str, str],
    before: Mapping[str, Right],
    after: Mapping[str, Right],
    prompts: Mapping[str, Prompts],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Comparison]:
    """A row a task and one for their mean; pictures of both stand in the same order."""
    differences = {}
    for task, right in before.items():
        if len(after[task]) != len(right) or len(prompts[task]) != len(right):
            raise ValueError(
                f"{task}: {len(right)} pictures of {names[0]} and {len(after[task])} of "
                f"{names[1]}; a paired test needs the same prompts and seeds"
            )
        sums, counts = _by_prompt(after[task].astype(np.int8) - right, prompts[task])
        differences[task] = sums / counts.mean()  # their mean is the difference of the shares
    rows = [
        _compared(names, task, [differences[task]], [before[task]], [after[task]], resamples, seed)
        for task in before
    ]
    if len(before) > 1:
        of_all = list(differences.values())
        sides = list(before.values()), [after[task] for task in before]
        rows.append(_compared(names, MEAN, of_all, *sides, resamples, seed))
    return rows


def _compared(
    names: tuple[str, str],
    task: str,
    differences: Sequence[NDArray[np.float64]],
    before: Sequence[Right],
    after: Sequence[Right],
    resamples: int,
    seed: int,
) -> Comparison:
    first, second = np.concatenate(list(before)), np.concatenate(list(after))
    gained, lost = int(np.sum(second & ~first)), int(np.sum(first & ~second))
    low, high = bootstrap(differences, resamples, seed)
    return Comparison(
        *names,
        task,
        float(np.mean([each.mean() for each in differences])),
        low,
        high,
        sign_flip(differences, resamples, seed),
        gained,
        lost,
        mcnemar(gained, lost),
        sum(map(len, differences)),
        len(first),
    )


def bootstrap(
    tasks: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """Percentiles of the mean over tasks of a mean over prompts, prompts drawn with replacement."""
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for values in tasks:
        number = len(values)
        for first in range(0, resamples, AT_ONCE):
            size = min(AT_ONCE, resamples - first)
            drawn = rng.integers(0, number, (size, number))
            means[first : first + size] += values[drawn].mean(axis=1) / len(tasks)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def sign_flip(
    tasks: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES, seed: int = SEED
) -> float:
    """Two-sided p of the mean over tasks under random signs of the prompts' differences."""
    # Of prompts without a difference the sign changes nothing.
    weighted = np.concatenate([values / len(values) for values in tasks])
    weighted = weighted[weighted != 0]
    observed = abs(float(weighted.sum()))
    rng = np.random.default_rng(seed)
    as_far = 0
    for first in range(0, resamples, AT_ONCE):
        size = (min(AT_ONCE, resamples - first), len(weighted))
        signs = rng.integers(0, 2, size, dtype=np.int8) * 2 - 1
        as_far += int(np.sum(np.abs(signs @ weighted) >= observed - 1e-12))
    return (as_far + 1) / (resamples + 1)


def mcnemar(gained: int, lost: int) -> float:
    """Exact, two-sided: the pictures that differ fall on each side like a fair coin."""
    from scipy.stats import binomtest  # half a second, which a flow that finds all need not wait

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _by_prompt(
    values: NDArray[np.generic], prompts: Prompts
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each prompt."""
    different, places = np.unique(prompts, return_inverse=True)
    sums = np.zeros(len(different))
    np.add.at(sums, places, values.astype(np.float64))
    return sums, np.bincount(places).astype(np.float64)
