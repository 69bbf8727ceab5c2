"""Our code against the released one: same machine, same process, alternating.

    LIGHTGEN_REFERENCE=folder PYTHONPATH=. python tests/benchmarks/reference.py [--pairs 4]

Training: a whole AdamW step with 256 tokens on a 43 M network in the proportions of the published
one, in the published mathematics (DDPM head, padded text attended, dropout) and in the improved
mode (padding cut and masked, flow head, stratified times, each for one noise or for several).
Sampling: the published mathematics, the same with step annealing, and the improved mode with few
Euler steps, all with the same number of iterations. Random weights: time does not depend on them.
The interpreter needs what the released code imports (timm 0.9.12, torchvision). Prints a Markdown
table of medians; the ratio is the median over pairs of their time through ours. `--clock cpu
--threads 1` counts processor time, for a busy machine.
"""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightgen_model.config import HeadConfig, ModelConfig, SamplingConfig
from lightgen_model.head import draw_times
from lightgen_model.masking import draw_masks
from lightgen_model.model import LightGen
from lightgen_model.published import load_published
from lightgen_model.sampling import sample
from tests.lightgen_model.reference_runner import build, prepare

PIXELS, TOKENS, DEPTH, TEXT_LENGTH, TEXT_WIDTH = 256, 256, 6, 128, 1024
LENGTHS = (12, 70)  # shortest and longest caption in T5 tokens, drawn uniformly
PUBLISHED = ModelConfig(
    width=384,
    num_heads=6,
    encoder_depth=DEPTH,
    decoder_depth=DEPTH,
    cross_depth=DEPTH,
    aligner_depth=2,
    text_width=TEXT_WIDTH,
    head=HeadConfig(depth=3, width=576),
)


def improved(num_draws: int, noises_per_time: int = 1) -> ModelConfig:
    """Padding masked, no dropout, a flow head whose times a token are stratified."""
    changes = {"batch_multiplier": num_draws, "noises_per_time": noises_per_time}
    head = PUBLISHED.head.model_copy(update={"kind": "flow", "stratified": True, **changes})
    return PUBLISHED.model_copy(update={"head": head, "attend_padding": False, "dropout": 0.0})


SIZES = {
    "width": PUBLISHED.width,
    "num_heads": PUBLISHED.num_heads,
    "depth": DEPTH,
    "channels": PUBLISHED.latent_channels,
    "aligner_depth": PUBLISHED.aligner_depth,
    "text_width": TEXT_WIDTH,
    "text_length": TEXT_LENGTH,
    "head_depth": PUBLISHED.head.depth,
    "head_width": PUBLISHED.head.width,
    "batch_multiplier": PUBLISHED.head.batch_multiplier,
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    gc.collect()
    start = clock()
    run()
    return clock() - start


def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, padded text and its lengths."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(size, 16, PIXELS // 8, PIXELS // 8, generator=generator)
    text = torch.randn(size, TEXT_LENGTH, TEXT_WIDTH, generator=generator)
    return latents, text, torch.randint(*LENGTHS, (size,), generator=generator)


def trainer(model: nn.Module, loss: Callable[[], Tensor], fused: bool) -> Callable[[], None]:
    """A step as each side's training loop takes it; ours has the fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.02, fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()

    return step


def their_trainer(reference: Any, size: int) -> Callable[[], None]:
    latents, text, _ = batch(size)
    reference.train()
    return trainer(reference, lambda: reference(latents, text, height=PIXELS, width=PIXELS), False)


def our_trainer(config: ModelConfig, size: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    model = LightGen(config).init_weights(generator).train()
    latents, text, lengths = batch(size)
    if not config.attend_padding:
        text = text[:, : int(lengths.max())]  # what a collate without padding hands over

    def loss() -> Tensor:
        mask = draw_masks(size, TOKENS, generator)
        rows = model.num_draws(mask)
        losses = model(
            latents,
            text,
            lengths,
            mask,
            times=draw_times(config.head, rows, generator),
            noise=torch.randn(rows, config.token_dim, generator=generator),
            drop_text=torch.rand(size, generator=generator) < config.text_drop,
        )
        return (losses.mse + losses.vb).mean()

    return trainer(model, loss, True)


def their_sampler(reference: Any, num: int, iterations: int) -> Callable[[], object]:
    text = batch(num)[1]

    def run() -> object:
        with torch.no_grad():
            return reference.sample_tokens(
                num,
                num_iter=iterations,
                cfg=4.0,
                cfg_schedule="constant",
                texts=text,
                height=PIXELS,
                width=PIXELS,
            )

    return run


def our_sampler(model: LightGen, num: int, sampling: SamplingConfig) -> Callable[[], object]:
    _, text, lengths = batch(num)
    return lambda: sample(model, text, lengths, sampling, image_size=PIXELS, seeds=range(num))


def our_samplers(
    ours: LightGen, num: int, iterations: int, steps: int
) -> dict[str, Callable[[], object]]:
    """The published mathematics; fewer steps of its head (DiSA); a flow head; fewer iterations."""
    published = SamplingConfig(num_iterations=iterations, head_steps=steps)
    annealed = published.model_copy(update={"head_steps": 50, "last_head_steps": 5})
    euler = published.model_copy(update={"head_steps": 25})
    flow = LightGen(improved(4)).init_weights(torch.Generator().manual_seed(0)).eval()
    fewer = euler.model_copy(update={"num_iterations": iterations // 2})
    last = {"last_head_steps": 5}
    return {
        f"published mathematics, {iterations} x {steps}": our_sampler(ours, num, published),
        f"steps annealed, {iterations} x 50 to 5": our_sampler(ours, num, annealed),
        f"improved mode, {iterations} x 25 Euler": our_sampler(flow, num, euler),
        f"improved mode, {iterations} x 25 to 5 Euler": our_sampler(
            flow, num, euler.model_copy(update=last)
        ),
        f"improved mode, {iterations // 2} x 25 Euler": our_sampler(flow, num, fewer),
        f"improved mode, {iterations // 2} x 25 to 5 Euler": our_sampler(
            flow, num, fewer.model_copy(update=last)
        ),
    }


def compare(
    runs: dict[str, Callable[[], object]], pairs: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each run, one round a pair in alternating order, so that load falls on all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(pairs):
        for name in sorted(runs, reverse=bool(number % 2)):
            times[name].append(seconds(runs[name], clock))
    return times


def report(what: str, times: dict[str, list[float]], images: int) -> None:
    theirs = times.pop("reference")
    for name, ours in times.items():
        ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
        reference, own = (images / statistics.median(values) for values in (theirs, ours))
        print(f"| {what}, {name} | {reference:.3f} | {own:.3f} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help="images a training step")
    parser.add_argument("--num", type=int, default=2, help="pictures a sampling call")
    parser.add_argument("--iterations", type=int, default=64)
    parser.add_argument("--head-steps", type=int, default=100)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", choices=("training", "sampling"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = CLOCKS[args.clock]
    prepare(os.environ["LIGHTGEN_REFERENCE"])
    reference = build(SIZES | {"head_steps": args.head_steps})
    millions = sum(parameter.numel() for parameter in reference.parameters()) / 1e6
    print(
        f"{millions:.1f} M parameters, {TOKENS} tokens, {args.threads} threads, float32, ", end=""
    )
    print(f"{args.clock} time\n")
    print("| what | released, images/s | ours, images/s | ours / released |\n|---|---|---|---|")
    if args.only != "sampling":
        runs = {
            "reference": their_trainer(reference, args.batch),
            "published mathematics": our_trainer(PUBLISHED, args.batch),
            "improved mode, 4 draws": our_trainer(improved(4), args.batch),
            "improved mode, 2 draws": our_trainer(improved(2), args.batch),
            "improved mode, 2 times x 2 noises": our_trainer(improved(4, 2), args.batch),
            "improved mode, 1 time x 4 noises": our_trainer(improved(4, 4), args.batch),
        }
        for run in runs.values():  # the first step makes the optimizer's state
            run()
        report("training", compare(runs, args.pairs, clock), args.batch)
    if args.only != "training":
        reference.eval()
        ours = load_published(reference.state_dict(), num_heads=PUBLISHED.num_heads)
        shape = (args.num, args.iterations)
        samplers = {
            "reference": their_sampler(reference, *shape),
            **our_samplers(ours, *shape, args.head_steps),
        }
        report("sampling", compare(samplers, args.pairs, clock), args.num)


if __name__ == "__main__":
    main()
