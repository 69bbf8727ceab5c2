"""Drawing with the exact savings of lightgen.md section 0 against the plain form, on the CPU.

    python -m tests.benchmarks.sampling [--threads 2]

Prints a Markdown table of tokens a second, medians of interleaved rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, ModelConfig, SamplingConfig, lightgen_published
from lightgen_model.model import LightGen
from lightgen_model.sampling import draw_tokens
from tests.lightgen_model.plain_sampling import plain_sample

TEXT_LENGTH = 128


def medium() -> ModelConfig:
    """The published student's proportions at an eighth of its width and depth."""
    head = HeadConfig(depth=1, width=192)
    depths = {f"{part}_depth": 2 for part in ("encoder", "decoder", "cross")}
    return lightgen_published().model_copy(
        update={"width": 128, "num_heads": 2, "aligner_depth": 1, "head": head, **depths}
    )


def drawings(
    model: LightGen, side: int, batch: int, values: SamplingConfig
) -> dict[str, Callable[[], None]]:
    """Both forms of drawing `batch` pictures of side x side tokens."""
    num_tokens, dim = side * side, model.config.token_dim
    states = torch.randn(batch, TEXT_LENGTH, model.config.text_width)
    lengths = torch.full((batch,), TEXT_LENGTH)
    orders = torch.stack([torch.randperm(num_tokens) for _ in range(batch)])

    def plain() -> None:
        def tape(step: int) -> Iterator[Tensor]:
            fixed = torch.randn(batch, num_tokens, dim)  # drawing noise is not measured
            return iter(lambda: fixed, None)

        plain_sample(model, states, lengths, values, orders, tape, (side, side))

    @torch.inference_mode()
    def ours() -> None:
        def noise(index: Tensor) -> Iterator[Tensor]:
            fixed = torch.randn(index.numel(), dim)
            return iter(lambda: fixed, None)

        text, tokens = model.align(states, lengths), torch.zeros(batch, num_tokens, dim)
        counts = [num_tokens] * batch
        for _ in draw_tokens(model, text, tokens, orders, counts, values, noise, grid=(side, side)):
            pass

    return {"plain": plain, "ours": ours}


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def speeds(rounds: int) -> None:
    model = LightGen(medium()).init_weights(torch.Generator().manual_seed(0)).eval()
    print("| tokens | batch | iterations | head steps | plain, tokens/s | ours, tokens/s | ratio |")
    print("|---|---|---|---|---|---|---|")
    for side, batch, iterations, head_steps in ((16, 1, 16, 10), (16, 4, 16, 10), (16, 4, 16, 25)):
        values = SamplingConfig(num_iterations=iterations, head_steps=head_steps)
        forms = drawings(model, side, batch, values)
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(rounds):
            for name, run in forms.items():
                times[name].append(seconds(run))
        plain, ours = (side**2 * batch / statistics.median(each) for each in times.values())
        print(
            f"| {side**2} | {batch} | {iterations} | {head_steps} | {plain:.0f} | {ours:.0f} "
            f"| {ours / plain:.1f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    speeds(args.rounds)
