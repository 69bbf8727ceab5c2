"""Looks at the student while it learns: a strip of pictures and a point of the learning curve.

In:    averaged weights after some steps; the run's first evaluator with its prompts.
Out:   a row of `curve.jsonl` and `samples/seen-*.png`, in the training's folder.
Rerun: rows and pictures beyond the step that a training goes on from are made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightgen_model.autoencoder import Autoencoder, to_images
from lightgen_model.model import LightGen
from lightgen_model.sampling import sample
from lightgen_model.text_encoder import TextEncoder
from pipeline import evaluators
from pipeline.checkpoints import CURVE, CURVE_PROMPTS, SAMPLES, Log
from pipeline.config import RunConfig
from pipeline.evaluators import Evaluator, Prompt
from pipeline.parallel import Weights

NUM_SHOWN = 8  # pictures a row of the sample sheet
DECODED_AT_ONCE = 32


@dataclass
class Watcher:
    """The first prompts of each task are drawn with the same seeds every time."""

    config: RunConfig
    autoencoder: Autoencoder
    folder: Path
    evaluator: Evaluator
    prompts: Sequence[Prompt]
    states: Tensor
    lengths: Tensor
    device: torch.device

    @staticmethod
    def build(
        config: RunConfig, folder: Path, device: torch.device, prompts_a_task: int = CURVE_PROMPTS
    ) -> "Watcher":
        assert config.evaluation is not None and config.features is not None
        evaluator = evaluators.build(config.evaluation.evaluators[0])
        prompts = first_of_each_task(evaluator.prompts(), prompts_a_task)
        features = config.features
        encoder = TextEncoder.load(
            features.text_encoder, features.text_length, features.text_encoder_revision
        )
        states, lengths = encoder.encode([prompt.text for prompt in prompts])
        autoencoder = Autoencoder.load(
            features.autoencoder,
            features.autoencoder_revision,
            features.autoencoder_subfolder,
            str(device),
        )
        return Watcher(config, autoencoder, folder, evaluator, prompts, states, lengths, device)

    def look(self, seen: int, image_size: int, average: Weights) -> dict[str, float]:
        """Draw, score and write down; the share of correct pictures by task, and their mean."""
        images = self.draw(average, image_size)
        scores = self.evaluator.score([Image.fromarray(image) for image in images], self.prompts)
        by_task: dict[str, list[bool]] = {}
        for prompt, score in zip(self.prompts, scores, strict=True):
            by_task.setdefault(prompt.task, []).append(score.correct)
        shares = {task: float(np.mean(values)) for task, values in by_task.items()}
        shares["mean"] = float(np.mean(list(shares.values())))
        shown = np.linspace(0, len(self.prompts) - 1, NUM_SHOWN).astype(int).tolist()
        strip = self.folder / SAMPLES / f"seen-{seen:09d}-{image_size}.png"
        strip.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([images[n] for n in shown], axis=1)).save(strip)
        Log(self.folder / CURVE, seen - 1, key="samples").write(
            {
                "samples": seen,
                "image_size": image_size,
                "scores": shares,
                "strip": strip.name,
                "prompts": [self.prompts[n].text for n in shown],
            }
        )
        return shares

    def draw(self, average: Weights, image_size: int) -> list[np.ndarray]:
        """A picture a prompt, uint8 (H, W, 3)."""
        assert self.config.student is not None and self.config.evaluation is not None
        with torch.device(self.device):
            model = LightGen(self.config.student.model.drawn).eval()
        model.load_state_dict({name: average[name] for name in model.state_dict()})
        values = self.config.evaluation.sampling
        if values.precision == "bfloat16":
            model = model.to(torch.bfloat16)
        tokens = self.config.student.model.grid(image_size) ** 2
        # A phase may be smaller than what is evaluated, and has at most one iteration a token.
        iterations = min(values.num_iterations, tokens)
        sampling = values.model_copy(update={"num_iterations": iterations})
        images: list[np.ndarray] = []
        for first in range(0, len(self.prompts), values.batch_size):
            rows = slice(first, first + values.batch_size)
            latents = sample(
                model,
                self.states[rows].to(self.device),
                self.lengths[rows].to(self.device),
                sampling,
                image_size=image_size,
                seeds=list(range(len(self.prompts)))[rows],
            )
            # A few at a time: the VAE's widest layers hold more than the student does.
            for start in range(0, len(latents), DECODED_AT_ONCE):
                pixels = self.autoencoder.decode(latents[start : start + DECODED_AT_ONCE])
                images += list(to_images(pixels).cpu().numpy())
        return images


def first_of_each_task(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    taken: dict[str, int] = {}
    chosen = []
    for prompt in prompts:
        taken[prompt.task] = taken.get(prompt.task, 0) + 1
        if taken[prompt.task] <= most:
            chosen.append(prompt)
    return chosen
