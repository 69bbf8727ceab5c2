"""Samplers against each other: what fewer steps cost in right pictures, and save in time.

    python -m tests.benchmarks.samplers --checkpoint artifacts/tiny/checkpoints/student-*/final

In:    a checkpoint of the shapes world (`tests.benchmarks.recipes` leaves others under its --out).
Out:   a Markdown table: the six-task mean on the held-out prompts by the exact detector, its
       difference from the full sampler's over the same prompts and seeds with the standard error
       of that difference, and the full sampler's time through this one's.
Rerun: draws everything again.

The full sampler takes one token an iteration and 100 denoising steps a token.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from lightgen_model import checkpoint
from lightgen_model.autoencoder import Autoencoder, to_images
from lightgen_model.config import SamplingConfig
from lightgen_model.model import LightGen
from lightgen_model.sampling import sample
from lightgen_model.text_encoder import TextEncoder
from pipeline import evaluators
from pipeline.config import ShapesEvaluator
from pipeline.evaluators import Evaluator, Prompt

FULL, HALF = "full", "half the iterations, "  # the latter begins a name
# Name to the values that differ from the full sampler's.
SETTINGS: dict[str, dict[str, dict[str, object]]] = {
    "ddpm": {
        FULL: {},
        "50 steps": {"head_steps": 50},
        "25 steps": {"head_steps": 25},
        "annealed 50 to 5": {"head_steps": 50, "last_head_steps": 5},
        "annealed 25 to 5": {"head_steps": 25, "last_head_steps": 5},
        "DDIM, 25 steps": {"head_steps": 25, "solver": "ddim"},
        "DPM-Solver++, 12 steps": {"head_steps": 12, "solver": "dpm2m"},
    },
    "flow": {
        FULL: {},
        "Euler, 25 steps": {"head_steps": 25},
        "Euler, 12 steps": {"head_steps": 12},
        "Heun, 12 steps": {"head_steps": 12, "solver": "heun"},
        "Heun, 6 steps": {"head_steps": 6, "solver": "heun"},
        "annealed 25 to 5": {"head_steps": 25, "last_head_steps": 5},
        f"{HALF}25 steps": {"head_steps": 25},
        f"{HALF}12 steps": {"head_steps": 12},
        f"{HALF}annealed 25 to 5": {"head_steps": 25, "last_head_steps": 5},
    },
}


class World(NamedTuple):
    """What turns tokens into scores."""

    model: LightGen
    vae: Autoencoder
    evaluator: Evaluator
    prompts: Sequence[Prompt]
    states: torch.Tensor  # (B, L, E)
    lengths: torch.Tensor  # (B,)


def world(folder: Path, num_prompts: int) -> World:
    config, values = checkpoint.read_config(folder)
    about = {name: str(value) for name, value in values.items()}
    evaluator = evaluators.build(ShapesEvaluator(kind="shapes", prompts_per_task=num_prompts))
    prompts = evaluator.prompts()
    encoder = TextEncoder.load(about["text_encoder"], config.text_length)
    states, lengths = encoder.encode([prompt.text for prompt in prompts])
    vae = Autoencoder.load(about["autoencoder"])
    return World(checkpoint.load(folder), vae, evaluator, prompts, states, lengths)


def correct(world: World, sampling: SamplingConfig, images: int) -> tuple[list[bool], float]:
    """Right or wrong by prompt and picture, and the seconds that drawing the latents took."""
    size, right, seconds = world.model.config.base_image_size, [], 0.0
    for image in range(images):
        start = time.perf_counter()
        seeds = range(image * len(world.prompts), (image + 1) * len(world.prompts))
        latents = sample(
            world.model, world.states, world.lengths, sampling, image_size=size, seeds=seeds
        )
        seconds += time.perf_counter() - start
        pixels = [to_images(world.vae.decode(part)) for part in latents.split(64)]
        pictures = [Image.fromarray(picture) for picture in torch.cat(pixels).numpy()]
        right += [score.correct for score in world.evaluator.score(pictures, world.prompts)]
    return right, seconds


def mean_of_tasks(prompts: Sequence[Prompt], values: Sequence[float]) -> float:
    by_task: dict[str, list[float]] = {}
    for place, value in enumerate(values):
        by_task.setdefault(prompts[place % len(prompts)].task, []).append(value)
    return statistics.mean(statistics.mean(each) for each in by_task.values())


def settings(model: LightGen, guidance: float) -> dict[str, SamplingConfig]:
    tokens = model.config.grid(model.config.base_image_size) ** 2
    base = {"num_iterations": tokens, "head_steps": 100, "guidance": guidance}
    named = {name: {**base, **own} for name, own in SETTINGS[model.config.head.kind].items()}
    for name, values in named.items():
        if name.startswith(HALF):
            values["num_iterations"] = tokens // 2
    return {name: SamplingConfig.model_validate(values) for name, values in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=60, help="held-out prompts a task")
    parser.add_argument("--images", type=int, default=2, help="pictures a prompt")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    place = world(args.checkpoint, args.prompts)
    results = {
        name: correct(place, sampling, args.images)
        for name, sampling in settings(place.model, args.guidance).items()
    }
    full, full_seconds = results[FULL]
    print(f"{place.model.config.head.kind} head, {len(full)} pictures, {args.threads} threads\n")
    print("| sampler | mean | against full | time, full / this |\n|---|---|---|---|")
    for name, (right, seconds) in results.items():
        mean = mean_of_tasks(place.prompts, right)
        change = [float(a) - float(b) for a, b in zip(right, full, strict=True)]
        error = statistics.pstdev(change) / len(change) ** 0.5
        difference = f"{mean_of_tasks(place.prompts, change):+.3f} ± {error:.3f}"
        print(f"| {name} | {mean:.3f} | {difference} | {full_seconds / seconds:.1f} |")


if __name__ == "__main__":
    main()
