"""How often intervals of 95 % hold the truth, and how often alike checkpoints are told apart.

    python -m tests.benchmarks.intervals [--repeats 2000]

Draws checkpoints whose prompts are of different difficulty (a beta distribution), four pictures a
prompt, and compares `pipeline.significance` with what takes pictures as independent: Wilson's
interval over pictures, McNemar's test. Prints two Markdown tables.
"""

import argparse
import time

import numpy as np

from pipeline.significance import compare, mean_interval, share_interval, wilson

PICTURES = 4
CASES = {  # prompts, and the beta distribution of their chances
    "60 prompts, any difficulty": (60, 1.0, 1.0),
    "60 prompts, easy or hard": (60, 0.3, 0.3),
    "60 prompts, all rather hard": (60, 2.0, 20.0),
    "100 prompts, most hopeless": (100, 0.1, 1.0),
}


def drawn(rng: np.random.Generator, number: int, a: float, b: float) -> np.ndarray:
    chances = rng.beta(a, b, number)[:, None]
    return (rng.random((number, PICTURES)) < chances).ravel()


def coverage(number: int, a: float, b: float, repeats: int) -> tuple[float, float, float]:
    """Shares of ours and of plain intervals that hold the truth, and the ratio of their widths."""
    rng, truth = np.random.default_rng(0), a / (a + b)
    prompts = np.repeat(np.arange(number), PICTURES)
    held, plain_held, widths = 0, 0, []
    for _ in range(repeats):
        right = drawn(rng, number, a, b)
        ours, plain = share_interval(right, prompts), wilson(right.mean(), right.size)
        held += ours.low <= truth <= ours.high
        plain_held += plain.low <= truth <= plain.high
        widths.append((ours.high - ours.low) / (plain.high - plain.low))
    return held / repeats, plain_held / repeats, float(np.mean(widths))


def mean_coverage(repeats: int) -> float:
    rng = np.random.default_rng(0)
    tasks = [(20, 1), (2, 2), (1, 2), (9, 1), (0.3, 3), (0.5, 3)]
    truth = np.mean([a / (a + b) for a, b in tasks])
    prompts, held = np.repeat(np.arange(60), PICTURES), 0
    for _ in range(repeats):
        each = [share_interval(drawn(rng, 60, a, b), prompts) for a, b in tasks]
        mean = mean_interval(each)
        held += mean.low <= truth <= mean.high
    return held / repeats


def told_apart(repeats: int, spread: float) -> tuple[float, float]:
    """Of checkpoints that are alike on average: p below 0.05 by sign flips, and by McNemar."""
    rng = np.random.default_rng(1)
    prompts, ours, plain = np.repeat(np.arange(60), PICTURES), 0, 0
    for _ in range(repeats):
        chances = rng.beta(1, 1, 60)
        # Each checkpoint finds other prompts hard, as two trainings do.
        sides = [np.clip(chances + rng.normal(0, spread, 60), 0, 1)[:, None] for _ in range(2)]
        before, after = ((rng.random((60, PICTURES)) < side).ravel() for side in sides)
        (row,) = compare(("a", "b"), {"t": before}, {"t": after}, {"t": prompts}, resamples=1000)
        ours += row.p < 0.05
        plain += row.mcnemar_p < 0.05
    return ours / repeats, plain / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description="Intervals and tests, tried on known truths.")
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    started = time.perf_counter()
    print("| intervals of 95 % | ours hold | Wilson over pictures holds | width, ours / plain |")
    print("|---|---:|---:|---:|")
    for name, case in CASES.items():
        ours, plain, width = coverage(*case, repeats)
        print(f"| {name} | {ours:.1%} | {plain:.1%} | {width:.2f} |")
    print(f"| mean of six tasks | {mean_coverage(repeats // 2):.1%} | | |")
    print("\n| alike checkpoints told apart at p < 0.05 | sign flips | McNemar |\n|---|---:|---:|")
    for spread in (0.0, 0.3):
        ours, plain = told_apart(repeats // 4, spread)
        print(f"| prompts differ by {spread:g} from one to the other | {ours:.1%} | {plain:.1%} |")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
