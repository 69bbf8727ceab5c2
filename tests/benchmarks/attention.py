"""Plain matmuls against the fused CPU kernel in short self-attention (bf16, a step of training).

    python tests/benchmarks/attention.py [--threads 2]

Prints a Markdown table; the ratio is fused time over plain time, medians of interleaved rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from lightgen_model import layers


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def step(tokens: int, batch: int, width: int, heads: int) -> Callable[[], None]:
    attention = layers.SelfAttention(width, heads, 0.0)
    x = torch.randn(batch, tokens, width, requires_grad=True)
    keep = torch.arange(tokens) < torch.randint(1, tokens + 1, (batch, 1))

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            attention(x, keep).sum().backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    limit = layers.SHORT_ATTENTION
    print("| tokens | batch | plain, ms | fused, ms | fused / plain |")
    print("|---|---|---|---|---|")
    for tokens, batch in ((16, 128), (64, 32), (256, 8)):
        run = step(tokens, batch, width=192, heads=4)
        times: dict[int, list[float]] = {tokens**2: [], 0: []}
        for _ in range(args.rounds):
            for short in times:
                layers.SHORT_ATTENTION = short
                times[short].append(seconds(run))
        plain, fused = (statistics.median(values) for values in times.values())
        print(
            f"| {tokens} | {batch} | {plain * 1e3:.1f} | {fused * 1e3:.1f} | {fused / plain:.1f} |"
        )
    layers.SHORT_ATTENTION = limit


if __name__ == "__main__":
    main()
