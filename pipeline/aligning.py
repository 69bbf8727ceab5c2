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
import torch
from torch import Tensor, nn

from lightgen_model import checkpoint
from lightgen_model.dpo import dpo_loss
from lightgen_model.model import LightGen, Split, TokenLosses
from pipeline import alignment
from pipeline.batches import Rows, TableRows, TextStates, batch_rows, position_of
from pipeline.config import DpoConfig, MaskingConfig, RunConfig
from pipeline.drawing import checkpoint_folder
from pipeline.draws import draw, to_device
from pipeline.parallel import recompute_activations
from pipeline.preferences import PREFERENCES
from pipeline.pretraining import arguments, build_accelerator
from pipeline.rounds import policy_of
from pipeline.starting import origins_of, save_weights
from pipeline.tables import Manifest
from pipeline.training import Part, Schedule, fit

# The first step compares equal weights; bf16 may round its loss, nothing else may move it.
FIRST_LOSS_TOLERANCE = 1e-3


def align_student(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    values, student = config.dpo, config.student
    assert values is not None and student is not None
    torch.set_float32_matmul_precision(student.matmul_precision)
    root, place = Path(config.root), alignment.folder(config, upstream)
    accelerator = build_accelerator(config, student.precision, values, place)
    device = str(accelerator.device)
    start = checkpoint_folder(config, *policy_of(upstream))
    held_against = checkpoint_folder(config, *alignment.reference_of(config, upstream))
    reference = checkpoint.load(held_against, device, expected=student.model.drawn)
    # Eval mode: dropout off, so that policy and reference agree at the first step.
    policy = checkpoint.load(start, device).requires_grad_(True)
    if values.checkpoint_activations:
        recompute_activations(policy)
    gib, snapshots = values.table_memory_gib, upstream["features"].snapshots
    columns = ["caption_id", "states", "length"]
    pairs = Pairs.load(
        TableRows.open(
            root,
            upstream["preferences"].snapshots[PREFERENCES.name],
            ["caption_id", "keep", "winner", "loser"],
            gib,
        ),
        TextStates(TableRows.open(root, snapshots["text"], columns, gib)),
        channels=student.model.latent_channels,
    )
    average = fit(
        policy,
        DpoStep(values, student.masking, reference, pairs, starts_equal=start == held_against),
        values.optimizer,
        values,
        Schedule(
            values.steps,
            values.batch_size,
            seed=values.seed,
            position=lambda step: position_of(pairs.source, values.seed, values.batch_size),
        ),
        place.path,
        accelerator=accelerator,
        label="DPO",
    )
    about = {
        "stage": "dpo",
        "beta": values.beta,
        "round": values.rounds,
        "student": upstream["student"].content,
        "start": policy_of(upstream)[0].content,
        "preferences": upstream["preferences"].content,
        "run": config.name,
        **origins_of(config),
    }
    if accelerator.is_main_process:
        save_weights(place.final, student.model.drawn, average, about)
        place.finish(config)
    accelerator.end_training()


@dataclass(frozen=True)
class Pairs:
    """Pairs that were kept: normalised latents of winner and loser, and their caption's text."""

    source: TableRows
    kept: Rows  # (P,) rows of the table
    text_rows: Rows  # (P,)
    text: TextStates
    channels: int

    @staticmethod
    def load(source: TableRows, text: TextStates, *, channels: int) -> "Pairs":
        keep = np.array(source.whole("keep").to_pylist(), bool)
        if not keep.any():
            raise ValueError(
                f"no preference pairs to learn from: all {len(keep)} rows were rejected; "
                "draw more captions or lower preferences.min_margin"
            )
        kept = np.flatnonzero(keep)
        captions = source.whole("caption_id").to_pylist()
        text_rows = text.rows([captions[row] for row in kept])
        return Pairs(source, kept, text_rows, text, channels)

    def take(self, pairs: Rows) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) of the winners, and of the losers."""
        table = self.source.take(self.kept[pairs])
        return self._latents(table["winner"].to_pylist()), self._latents(table["loser"].to_pylist())

    def _latents(self, column: list[bytes]) -> Tensor:
        rows = np.stack([np.frombuffer(bits, np.float16) for bits in column])
        side = round((rows.shape[1] / self.channels) ** 0.5)
        return torch.from_numpy(rows).float().view(len(rows), self.channels, side, side)


@dataclass
class DpoStep:
    config: DpoConfig
    masking: MaskingConfig
    reference: LightGen
    pairs: Pairs
    starts_equal: bool = True  # the policy starts as the reference

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        inputs, draws = self._inputs(step, part, next(model.parameters()).device)
        with torch.no_grad():
            frozen: TokenLosses = self.reference(*inputs, **draws)
        losses: TokenLosses = model(*inputs, **draws)
        num = len(inputs[0])
        winner, loser = losses.per_sample(num).chunk(2)
        winner_reference, loser_reference = frozen.per_sample(num).chunk(2)
        out = dpo_loss(winner, loser, winner_reference, loser_reference, self.config.beta)
        if step == 0 and self.starts_equal:
            check_first_loss(float(out.loss.detach()))
        drift = {"winner_drift": out.winner_drift, "loser_drift": out.loser_drift}
        extras = {"accuracy": out.accuracy, **drift}
        return out.loss, {name: value.detach() for name, value in extras.items()}

    def _inputs(
        self, step: int, part: Part, device: torch.device
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Split], dict[str, Tensor]]:
        """Latents, text and masks of a part's winners, then of its losers; times and noise."""
        size, seed = self.config.batch_size, self.config.seed + 1
        everyone = batch_rows(len(self.pairs.kept), size, self.config.seed, step)
        mine = part.of(size)
        rows = everyone[list(mine)]
        longest = int(self.pairs.text.lengths[self.pairs.text_rows[everyone]].max())
        states, lengths = self.pairs.text.take(self.pairs.text_rows[rows], longest)
        winners, losers = self.pairs.take(rows)
        tokens = winners[0, 0].numel() // self.reference.config.patch_size**2
        draws = draw(size, mine, tokens, self.reference.config, self.masking, seed, step)
        # Rows of the head run sample by sample, so the loser's draws repeat the winner's.
        split = Split.of(torch.cat([draws.mask] * 2)).map(lambda x: to_device(x, device))
        inputs = (
            to_device(torch.cat([winners, losers]), device),
            to_device(torch.cat([states, states]), device),
            to_device(torch.cat([lengths, lengths]), device),
            split,
        )
        # No text is dropped; saying so gives the null text a gradient of zero, which DDP waits for.
        rest = {
            "times": draws.times,
            "noise": draws.noise,
            "drop_text": torch.zeros(len(rows), dtype=torch.bool),
        }
        return inputs, {n: to_device(torch.cat([x, x]), device) for n, x in rest.items()}


def check_first_loss(loss: float) -> None:
    if abs(loss - math.log(2)) > FIRST_LOSS_TOLERANCE:
        raise ValueError(f"the first DPO loss is {loss:.6f}, not ln 2: policy and reference differ")


if __name__ == "__main__":
    align_student(*arguments("Align the student with DPO."))
