"""Looks at the policy while it is aligned: held-out captions, drawn with fixed seeds and scored.

In:    averaged weights after some steps; captions of the run that no round pairs, the scorer.
Out:   a row of `curve.jsonl` and `samples/step-*.png` in the training's folder; where the best
       weights are kept, `best-<step>.safetensors` for every look that was better than those before.
Rerun: rows beyond the step that a training goes on from are made again.

The prompts of the evaluation are none of these captions: a checkpoint chosen by them would be
measured by what it was chosen for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightgen_model.autoencoder import to_images
from lightgen_model.checkpoint import publish
from lightgen_model.model import LightGen
from lightgen_model.sampling import sample
from pipeline.alignment import best_of
from pipeline.checkpoints import CURVE, SAMPLES, Log, read_rows
from pipeline.config import RunConfig
from pipeline.encoders import autoencoder, text_encoder
from pipeline.feature_tables import name_of
from pipeline.images import seed_of
from pipeline.judges import Judge
from pipeline.parallel import Weights
from pipeline.starting import plain
from pipeline.subjects import chosen_captions, score_of, scorer_of, values_of
from pipeline.tables import Manifest, read
from pipeline.tasks import task_of
from pipeline.verdicts import build_judge

NUM_SHOWN = 8  # pictures of a look's strip
DECODED_AT_ONCE = 32


@dataclass
class HeldOut:
    config: RunConfig
    folder: Path
    captions: Sequence[str]
    states: Tensor  # (B, L, E)
    lengths: Tensor  # (B,)
    seeds: Sequence[int]
    judge: Judge
    device: str

    @staticmethod
    def build(
        config: RunConfig, upstream: Mapping[str, Manifest], folder: Path, device: str
    ) -> "HeldOut":
        assert config.features is not None
        captions = held_out_captions(config, upstream)
        encoder = text_encoder(config.features, device)
        states, lengths = encoder.encode(list(captions.values()))
        seeds = [seed_of(caption_id, "held out") for caption_id in captions]
        judge = build_judge(scorer_of(config).judge, config.root)
        texts = list(captions.values())
        return HeldOut(config, folder, texts, states, lengths, seeds, judge, device)

    def look(self, step: int, average: Weights) -> None:
        """Draw, score and write down."""
        images = self._draw(average)
        verdicts = self.judge.judge([Image.fromarray(image) for image in images], self.captions)
        weight, scorer = values_of(self.config).alignment_weight, scorer_of(self.config)
        said = [{"alignment": v.alignment, "quality": v.quality} for v in verdicts]
        score = float(np.mean([score_of(row, weight) for row in said]))
        good = [
            v.alignment >= scorer.min_alignment and v.quality >= scorer.min_quality
            for v in verdicts
        ]
        earlier = [row["score"] for row in looks(self.folder) if row["step"] < step]
        strip = self._strip(step, images)
        assert self.config.dpo is not None
        if self.config.dpo.keep == "best" and score > max(earlier, default=-1.0):
            part = self.folder / f".{best_name(step)}.part"
            save_file(plain(average), part)
            publish(part, self.folder / best_name(step))
        Log(self.folder / CURVE, step - 1).write(
            {
                "step": step,
                "score": score,
                "good": float(np.mean(good)),
                "strip": strip.name,
                "prompts": list(self.captions[:NUM_SHOWN]),
            }
        )

    def _strip(self, step: int, images: Sequence[np.ndarray]) -> Path:
        """The first captions of the round-robin over tasks, one picture each."""
        place = self.folder / SAMPLES / f"step-{step:09d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(images[:NUM_SHOWN], axis=1)).save(place)
        return place

    def _draw(self, average: Weights) -> list[np.ndarray]:
        student, values = self.config.student, values_of(self.config)
        assert student is not None and self.config.features is not None
        with torch.device(self.device):
            model = LightGen(student.model.drawn).eval()
        model.load_state_dict({name: average[name] for name in model.state_dict()})
        if values.sampling.precision == "bfloat16":
            model = model.to(torch.bfloat16)
        vae = autoencoder(self.config.features, self.device)
        images: list[np.ndarray] = []
        for first in range(0, len(self.captions), values.sampling.batch_size):
            rows = slice(first, first + values.sampling.batch_size)
            latents = sample(
                model,
                self.states[rows].to(self.device),
                self.lengths[rows].to(self.device),
                values.sampling,
                image_size=values.image_size,
                seeds=self.seeds[rows],
            )
            for start in range(0, len(latents), DECODED_AT_ONCE):
                pixels = vae.decode(latents[start : start + DECODED_AT_ONCE])
                images += list(to_images(pixels).cpu().numpy())
        return images


def held_out_captions(config: RunConfig, upstream: Mapping[str, Manifest]) -> dict[str, str]:
    """Captions by id that neither this round nor an earlier one pairs, the tasks in turn.

    ValueError where the rounds leave fewer than `dpo.watch_captions`.
    """
    dpo, values = config.dpo, values_of(config)
    assert dpo is not None
    features = upstream["features"].snapshots[name_of(values.image_size)]
    there = dict.fromkeys(
        read(config.root, features, ["caption_id"], check=False)["caption_id"].to_pylist()
    )
    captions = upstream["captions"].snapshots["captions"]
    table = read(config.root, captions, ["caption_id", "caption"], check=False)
    texts = dict(zip(table["caption_id"].to_pylist(), table["caption"].to_pylist(), strict=True))
    paired: set[str] = set()
    for back in range(dpo.rounds):
        seed = values.seed - back * values.seed_per_round
        paired |= set(chosen_captions(there, texts, values, seed))
    free = [caption_id for caption_id in there if caption_id not in paired]
    if len(free) < dpo.watch_captions:
        raise ValueError(
            f"dpo.watch_captions: {dpo.watch_captions}, but {len(free)} captions are in no pair; "
            f"lower it, or preferences.num_captions {values.num_captions}"
        )
    by_task: dict[str, list[str]] = {}
    for caption_id in sorted(free, key=lambda caption_id: seed_of(caption_id, "held out")):
        by_task.setdefault(task_of(texts[caption_id]), []).append(caption_id)
    return {one: texts[one] for one in in_turn(list(by_task.values()))[: dpo.watch_captions]}


def in_turn(queues: Sequence[Sequence[str]]) -> list[str]:
    """One of each queue, then the next of each, until all are empty."""
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]


def best_name(step: int) -> str:
    return f"best-{step:09d}.safetensors"


def looks(folder: Path) -> list[dict[str, Any]]:
    """Every look so far, oldest first."""
    return read_rows(folder / CURVE)


def best_weights(folder: Path) -> tuple[int, Weights]:
    """The step of the best look, and the weights that it saw."""
    step = int(best_of(looks(folder))["step"])
    return step, load_file(folder / best_name(step))


def drop_weights(folder: Path) -> None:
    """Once the best ones are published."""
    for path in folder.glob("best-*.safetensors"):
        path.unlink()
