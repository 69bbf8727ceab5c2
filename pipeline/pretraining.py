"""The program that trains the student: `python -m pipeline.pretraining --config F --upstream F`.

In:    the run as YAML, and the manifests of the stages before as JSON.
Out:   the checkpoint folder that `pipeline.student` describes.
Rerun: goes on from the last saved step of the phase it was in, bit for bit.

Flips are never applied: a mirrored picture makes "left of" a lie (lightgen.md 2.3).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from lightgen_model import checkpoint
from lightgen_model.autoencoder import Autoencoder, to_images
from lightgen_model.config import ModelConfig
from lightgen_model.head import draw_times
from lightgen_model.masking import draw_masks
from lightgen_model.model import LightGen, TokenLosses
from lightgen_model.sampling import sample
from lightgen_model.text_encoder import TextEncoder
from pipeline import evaluators, student
from pipeline.batches import FeatureBatches, TextStates
from pipeline.checkpoints import CURVE, SAMPLES, Log
from pipeline.config import (
    FeaturesConfig,
    MaskingConfig,
    RunConfig,
    StudentConfig,
    TrainingPhase,
    load_run,
)
from pipeline.evaluators import Evaluator, Prompt
from pipeline.tables import Manifest, read
from pipeline.training import Schedule, Weights, fit

NUM_SHOWN = 8  # pictures a row of the sample sheet
DECODED_AT_ONCE = 32
CURVE_PROMPTS = 24  # prompts a task behind a point of the learning curve


def train_student(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    """Every phase in turn; the next one starts from the weights and the average of the last."""
    values, features = config.student, config.features
    assert values is not None and features is not None
    torch.set_float32_matmul_precision(values.matmul_precision)
    accelerator = build_accelerator(config, values.precision)
    place = student.folder(config, upstream)
    snapshots = upstream["features"].snapshots
    text = TextStates(read(Path(config.root), snapshots["text"]))
    text.require_width(values.model.text_width)
    autoencoder = Autoencoder.load(
        features.autoencoder, features.autoencoder_revision, features.autoencoder_subfolder
    )
    generator = torch.Generator().manual_seed(values.seed)
    model = LightGen(values.model).init_weights(generator)
    about = {"stage": "student", "features": upstream["features"].content, "run": config.name}
    about |= encoders_of(features)
    if accelerator.is_main_process:
        save_weights(place.path / student.UNTRAINED, values.model, model.state_dict(), about)
    average: Weights | None = None
    seen = 0
    for index, phase in enumerate(values.phases):
        batches = FeatureBatches.load(
            read(Path(config.root), snapshots[f"features_{phase.image_size}"]),
            text,
            cells=phase.image_size // values.model.latent_stride,
            scale=autoencoder.scale,
            shift=autoencoder.shift,
            batch_size=phase.batch_size,
            seed=values.seed + index,
        )
        seed = values.seed * 101 + index
        watcher = Watcher.build(config, autoencoder, place.path, phase, seen)
        average = fit(
            model,
            PretrainingStep(
                values, batches, seed, accelerator.process_index, accelerator.num_processes
            ),
            phase.optimizer,
            Schedule(
                phase.steps,
                values.log_every,
                values.checkpoint_every,
                values.sample_every if watcher else 0,
                seed,
            ),
            place.path / student.phase_name(index, phase.image_size),
            accelerator=accelerator,
            samples_per_step=phase.batch_size,
            compile_model=values.compile,
            average=average,
            watch=watcher if accelerator.is_main_process else None,
            label=f"student {phase.image_size} px",
        )
        seen += phase.steps * phase.batch_size
    if accelerator.is_main_process:
        assert average is not None
        save_weights(place.final, values.model, average, about)
        place.finish(config)


def save_weights(
    folder: Path, model: ModelConfig, weights: Weights, about: Mapping[str, object]
) -> None:
    """A checkpoint to draw with: in float32, from wherever it was trained."""
    plain = {name: value.float().cpu() for name, value in weights.items()}
    checkpoint.save(folder, model, plain, about)


def encoders_of(features: FeaturesConfig) -> dict[str, str]:
    """What a checkpoint says of the VAE and the T5 that it needs to draw; "" is no value."""
    return {
        "autoencoder": features.autoencoder,
        "autoencoder_revision": features.autoencoder_revision or "",
        "autoencoder_subfolder": features.autoencoder_subfolder,
        "text_encoder": features.text_encoder,
        "text_encoder_revision": features.text_encoder_revision or "",
    }


def build_accelerator(config: RunConfig, precision: str) -> Accelerator:
    mixed = "bf16" if precision == "bfloat16" else "no"
    return Accelerator(cpu=config.device == "cpu", mixed_precision=mixed)


@dataclass
class PretrainingStep:
    """Loss of one global step; each process takes its contiguous part of the batch."""

    config: StudentConfig
    batches: FeatureBatches
    seed: int
    rank: int = 0
    num_ranks: int = 1

    def __call__(self, model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        latents, states, lengths = self.batches.take(step, generator)
        mask = masks_for(latents, self.config.model, self.config.masking, generator)
        drop = torch.rand(len(latents), generator=generator) < self.config.model.text_drop
        times, noise = draws_for(mask, self.config.model, generator)
        mine, rows = share(mask, len(times), self.rank, self.num_ranks)
        device = next(model.parameters()).device
        losses: TokenLosses = model(
            *(x[mine].to(device) for x in (latents, states, lengths, mask)),
            times=times[rows].to(device),
            noise=noise[rows].to(device),
            drop_text=drop[mine].to(device),
        )
        # Processes have different numbers of masked tokens; the mean is over those of the batch.
        weight = self.num_ranks / len(times)
        mse, vb = losses.mse.sum() * weight, losses.vb.sum() * weight
        return mse + vb, {"mse": mse.detach(), "vb": vb.detach()}


def share(mask: Tensor, num_draws: int, rank: int, num_ranks: int) -> tuple[slice, slice]:
    """One process's contiguous part of a global batch: its samples, and their draws."""
    size, rest = divmod(len(mask), num_ranks)
    if rest:
        raise ValueError(f"a batch of {len(mask)} does not divide by {num_ranks} processes")
    draws = num_draws // int(mask.sum())
    first, last = rank * size, (rank + 1) * size
    before, through = int(mask[:first].sum()), int(mask[:last].sum())
    return slice(first, last), slice(before * draws, through * draws)


def masks_for(
    latents: Tensor, model: ModelConfig, masking: MaskingConfig, generator: torch.Generator
) -> Tensor:
    tokens = latents.shape[2] * latents.shape[3] // model.patch_size**2
    return draw_masks(
        len(latents),
        tokens,
        generator,
        distribution=masking.distribution,
        min_ratio=masking.min_ratio,
        per_sample=masking.per_sample,
    )


def draws_for(
    mask: Tensor, model: ModelConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Times (T,) and noise (T, D) for the masked tokens of a batch."""
    rows = int(mask.sum()) * model.head.batch_multiplier
    noise = torch.randn(rows, model.token_dim, generator=generator)
    return draw_times(model.head, rows, generator), noise


@dataclass
class Watcher:
    """Looks at the student while it learns: a strip of pictures and a point of the curve.

    The first prompts of each task are drawn with the same seeds every time.
    """

    config: RunConfig
    autoencoder: Autoencoder
    folder: Path
    phase: TrainingPhase
    seen_before: int
    evaluator: Evaluator
    prompts: Sequence[Prompt]
    states: Tensor
    lengths: Tensor

    @staticmethod
    def build(
        config: RunConfig,
        autoencoder: Autoencoder,
        folder: Path,
        phase: TrainingPhase,
        seen_before: int,
    ) -> "Watcher | None":
        if config.evaluation is None or config.features is None:
            return None
        evaluator = evaluators.build(config.evaluation.evaluators[0])
        prompts = first_of_each_task(evaluator.prompts(), CURVE_PROMPTS)
        features = config.features
        encoder = TextEncoder.load(
            features.text_encoder, features.text_length, features.text_encoder_revision
        )
        states, lengths = encoder.encode([prompt.text for prompt in prompts])
        return Watcher(
            config, autoencoder, folder, phase, seen_before, evaluator, prompts, states, lengths
        )

    def __call__(self, step: int, average: Weights) -> None:
        assert self.config.student is not None
        if self.seen_before and not step:
            return  # the last look of the phase before
        seen = self.seen_before + step * self.phase.batch_size
        images = self._draw(average)
        scores = self.evaluator.score([Image.fromarray(image) for image in images], self.prompts)
        by_task: dict[str, list[bool]] = {}
        for prompt, score in zip(self.prompts, scores, strict=True):
            by_task.setdefault(prompt.task, []).append(score.correct)
        shares = {task: float(np.mean(values)) for task, values in by_task.items()}
        shown = np.linspace(0, len(self.prompts) - 1, NUM_SHOWN).astype(int).tolist()
        strip = self.folder / SAMPLES / f"seen-{seen:09d}-{self.phase.image_size}.png"
        strip.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([images[n] for n in shown], axis=1)).save(strip)
        Log(self.folder / CURVE, seen - 1, key="samples").write(
            {
                "samples": seen,
                "image_size": self.phase.image_size,
                "scores": {**shares, "mean": float(np.mean(list(shares.values())))},
                "strip": strip.name,
                "prompts": [self.prompts[n].text for n in shown],
            }
        )

    def _draw(self, average: Weights) -> list[np.ndarray]:
        assert self.config.student is not None and self.config.evaluation is not None
        model = LightGen(self.config.student.model).eval()
        model.load_state_dict(average)
        values = self.config.evaluation.sampling
        tokens = self.config.student.model.grid(self.phase.image_size) ** 2
        # A phase may be smaller than what is evaluated, and has at most one iteration a token.
        iterations = min(values.num_iterations, tokens)
        sampling = values.model_copy(update={"num_iterations": iterations})
        images: list[np.ndarray] = []
        for first in range(0, len(self.prompts), values.batch_size):
            rows = slice(first, first + values.batch_size)
            latents = sample(
                model,
                self.states[rows],
                self.lengths[rows],
                sampling,
                image_size=self.phase.image_size,
                seeds=list(range(len(self.prompts)))[rows],
            )
            # A few at a time: the VAE's widest layers hold more than the student does.
            for start in range(0, len(latents), DECODED_AT_ONCE):
                pixels = self.autoencoder.decode(latents[start : start + DECODED_AT_ONCE])
                images += list(to_images(pixels).numpy())
        return images


def first_of_each_task(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    taken: dict[str, int] = {}
    chosen = []
    for prompt in prompts:
        taken[prompt.task] = taken.get(prompt.task, 0) + 1
        if taken[prompt.task] <= most:
            chosen.append(prompt)
    return chosen


def read_upstream(path: Path) -> dict[str, Manifest]:
    values = json.loads(path.read_text(encoding="utf-8"))
    return {stage: Manifest.from_json(manifest) for stage, manifest in values.items()}


def arguments(description: str) -> tuple[RunConfig, dict[str, Manifest]]:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="the run, a YAML file")
    parser.add_argument("--upstream", type=Path, required=True, help="manifests, a JSON file")
    args = parser.parse_args()
    return load_run(args.config), read_upstream(args.upstream)


if __name__ == "__main__":
    train_student(*arguments("Train the student."))
