"""The program that runs DPO: `python -m pipeline.aligning --config F --upstream F`.

In:    the run as YAML, and the manifests of the stages before as JSON.
Out:   the checkpoint folder that `pipeline.alignment` describes.
Rerun: goes on from the last saved step, bit for bit.

Winner and loser, policy and reference share masks, times and noise; dropout and text drop are off,
so the first step's loss is ln 2 exactly (lightgen.md 2.7).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from lightgen_model import checkpoint
from lightgen_model.dpo import dpo_loss
from lightgen_model.model import LightGen, TokenLosses
from pipeline import alignment
from pipeline.batches import TextStates, batch_rows
from pipeline.config import DpoConfig, MaskingConfig, RunConfig
from pipeline.preferences import PREFERENCES
from pipeline.pretraining import (
    arguments,
    build_accelerator,
    draws_for,
    encoders_of,
    masks_for,
    save_weights,
)
from pipeline.tables import Manifest, read
from pipeline.training import Schedule, fit

# The first step compares equal weights; bf16 may round its loss, nothing else may move it.
FIRST_LOSS_TOLERANCE = 1e-3


def align_student(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    values, student, features = config.dpo, config.student, config.features
    assert values is not None and student is not None and features is not None
    torch.set_float32_matmul_precision(student.matmul_precision)
    accelerator = build_accelerator(config, student.precision)
    root, place = Path(config.root), alignment.folder(config, upstream)
    start = root / upstream["student"].checkpoints["student"]
    reference = checkpoint.load(start, config.device, expected=student.model)
    # Eval mode: dropout off, so that policy and reference agree at the first step.
    policy = checkpoint.load(start, config.device).requires_grad_(True)
    pairs = Pairs.load(
        read(root, upstream["preferences"].snapshots[PREFERENCES.name]),
        TextStates(read(root, upstream["features"].snapshots["text"])),
        channels=student.model.latent_channels,
    )
    average = fit(
        policy,
        DpoStep(values, student.masking, reference, pairs),
        values.optimizer,
        Schedule(values.steps, values.log_every, values.checkpoint_every, seed=values.seed),
        place.path,
        accelerator=accelerator,
        samples_per_step=values.batch_size,
        label="DPO",
    )
    about = {
        "stage": "dpo",
        "beta": values.beta,
        "student": upstream["student"].content,
        "preferences": upstream["preferences"].content,
        "run": config.name,
        **encoders_of(features),
    }
    save_weights(place.final, student.model, average, about)
    place.finish(config)


@dataclass(frozen=True)
class Pairs:
    winners: Tensor  # (P, c, h, w) normalised latents
    losers: Tensor  # (P, c, h, w)
    text_rows: np.ndarray  # (P,)
    text: TextStates

    @staticmethod
    def load(table: pa.Table, text: TextStates, *, channels: int) -> "Pairs":
        kept = table.filter(table["keep"])
        if len(kept) == 0:
            raise ValueError(
                f"no preference pairs to learn from: all {len(table)} rows were rejected; "
                "draw more captions or lower preferences.min_margin"
            )
        return Pairs(
            _latents(kept["winner"], channels),
            _latents(kept["loser"], channels),
            text.rows(kept["caption_id"].to_pylist()),
            text,
        )


def _latents(column: pa.ChunkedArray, channels: int) -> Tensor:
    rows = np.stack([np.frombuffer(bits, np.float16) for bits in column.to_pylist()])
    side = round((rows.shape[1] / channels) ** 0.5)
    return torch.from_numpy(rows).float().view(len(rows), channels, side, side)


@dataclass
class DpoStep:
    config: DpoConfig
    masking: MaskingConfig
    reference: LightGen
    pairs: Pairs

    def __call__(self, model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        seed = self.config.seed
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        rows = batch_rows(len(self.pairs.winners), self.config.batch_size, seed, step)
        states, lengths = self.pairs.text.take(self.pairs.text_rows[rows])
        chosen = torch.from_numpy(rows)
        latents = torch.cat([self.pairs.winners[chosen], self.pairs.losers[chosen]])
        mask = masks_for(latents[: len(rows)], self.reference.config, self.masking, generator)
        times, noise = draws_for(mask, self.reference.config, generator)
        device = next(model.parameters()).device
        batch = (latents, *(torch.cat([x, x]) for x in (states, lengths, mask)))
        # Rows of the head run sample by sample, so the loser's draws repeat the winner's.
        draws = {"times": torch.cat([times, times]), "noise": torch.cat([noise, noise])}
        inputs = [x.to(device) for x in batch]
        draws = {name: x.to(device) for name, x in draws.items()}
        with torch.no_grad():
            frozen: TokenLosses = self.reference(*inputs, **draws)
        losses: TokenLosses = model(*inputs, **draws)
        winner, loser = losses.per_sample(len(latents)).chunk(2)
        winner_reference, loser_reference = frozen.per_sample(len(latents)).chunk(2)
        out = dpo_loss(winner, loser, winner_reference, loser_reference, self.config.beta)
        if step == 0:
            check_first_loss(float(out.loss.detach()))
        drift = {"winner_drift": out.winner_drift, "loser_drift": out.loser_drift}
        extras = {"accuracy": out.accuracy, **drift}
        return out.loss, {name: value.detach() for name, value in extras.items()}


def check_first_loss(loss: float) -> None:
    if abs(loss - math.log(2)) > FIRST_LOSS_TOLERANCE:
        raise ValueError(f"the first DPO loss is {loss:.6f}, not ln 2: policy and reference differ")


if __name__ == "__main__":
    align_student(*arguments("Align the student with DPO."))
