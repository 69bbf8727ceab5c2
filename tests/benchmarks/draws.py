"""How much gradient noise a number of (t, noise) draws a token costs, against the work it saves.

Draws are independent, spread over strata of the time, or in groups that share a time.

    PYTHONPATH=. python tests/benchmarks/draws.py [--steps 40] [--repeats 16]

Trains the tiny student on the world of shapes for a while, freezes it, and measures the variance of
the gradient over batches of new pictures, masks and draws. Prints a Markdown table; the variance is
relative to four independent draws, as published.
"""

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from lightgen_model.autoencoder import Autoencoder
from lightgen_model.config import tiny
from lightgen_model.head import draw_times
from lightgen_model.masking import draw_masks
from lightgen_model.model import LightGen
from lightgen_model.text_encoder import TextEncoder
from pipeline.shapes.encoders import render_batch
from pipeline.shapes.grammar import sample_captions

MODELS, PICTURES, BATCH, PIXELS = "infra/models/shapes", 1000, 32, 64


def pictures(num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised latents, text states and lengths."""
    vae = Autoencoder.load(f"{MODELS}/autoencoder")
    text_encoder = TextEncoder.load(f"{MODELS}/text_encoder", tiny().text_length)
    pixels = render_batch(num, seed=0, image_size=PIXELS).split(100)
    latents = torch.cat([vae.mean(vae.encode(part)) for part in pixels])
    return latents, *text_encoder.encode(sample_captions(num, 0))


@dataclass(frozen=True)
class Case:
    """Draws a token, of which `noises` each share a time."""

    draws: int
    stratified: bool
    noises: int = 1


BASE = Case(4, stratified=False)  # as published
CASES = (
    Case(1, stratified=False),
    *(Case(num, stratified) for num in (2, 4) for stratified in (False, True)),
    Case(2, stratified=False, noises=2),
    Case(4, stratified=True, noises=2),
    Case(4, stratified=False, noises=4),
    Case(8, stratified=True, noises=2),
    Case(8, stratified=True, noises=4),
)


def with_draws(case: Case) -> LightGen:
    changes = {"stratified": case.stratified, "noises_per_time": case.noises}
    head = tiny().head.model_copy(update={"batch_multiplier": case.draws, **changes})
    return LightGen(tiny().model_copy(update={"head": head}))


def loss(
    model: LightGen, data: tuple[Tensor, Tensor, Tensor], generator: torch.Generator
) -> Tensor:
    chosen = torch.randperm(len(data[0]), generator=generator)[:BATCH]
    latents, states, lengths = (values[chosen] for values in data)
    mask = draw_masks(
        BATCH,
        model.config.grid(PIXELS) ** 2,
        generator,
        distribution="uniform",
        min_ratio=0.0,
        per_sample=True,
    )
    rows = model.num_draws(mask)
    times = draw_times(model.config.head, rows, generator)
    noise = torch.randn(rows, model.config.token_dim, generator=generator)
    return model(latents, states, lengths, mask, times=times, noise=noise).mse.mean()


def gradient(model: LightGen) -> Tensor:
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([grad.flatten() for grad in grads]).double()


def variance(
    model: LightGen, data: tuple[Tensor, Tensor, Tensor], repeats: int
) -> tuple[float, float]:
    """Trace of the gradient's covariance, and processor seconds a step."""
    generator, start = torch.Generator().manual_seed(2), time.process_time()
    total, squares = torch.zeros(()), 0.0
    for _ in range(repeats):
        model.zero_grad()
        loss(model, data, generator).backward()
        found = gradient(model)
        total, squares = total + found, squares + found.square().sum().item()
    spread = squares / repeats - (total / repeats).square().sum().item()
    return spread * repeats / (repeats - 1), (time.process_time() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, generator = pictures(PICTURES), torch.Generator().manual_seed(1)
    student = with_draws(Case(2, stratified=True)).init_weights(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    for _ in range(args.steps):
        optimizer.zero_grad()
        loss(student, data, generator).backward()
        optimizer.step()
    found = {}
    for case in CASES:
        model = with_draws(case)
        model.load_state_dict(student.state_dict())
        found[case] = variance(model, data, args.repeats)
    print("| draws a token | noises a time | stratified | gradient variance | processor time |")
    print("|---|---|---|---|---|")
    base = found[BASE]
    for case, (spread, seconds) in found.items():
        print(f"| {case.draws} | {case.noises} | {case.stratified} ", end="")
        print(f"| {spread / base[0]:.2f} | {seconds / base[1]:.2f} |")


if __name__ == "__main__":
    main()
