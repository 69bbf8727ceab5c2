"""One step of pre-training: the loss of the masked tokens of a part of a batch.

In:    a step's number, and which part of its global batch.
Out:   the loss, and its terms for the log; the mean over parts is the batch's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from lightgen_model.model import Split, TokenLosses
from pipeline.batches import Batch, FeatureBatches
from pipeline.config import StudentConfig
from pipeline.draws import Draws, draw, pinned, row_generators, to_device
from pipeline.prefetch import Place
from pipeline.training import Part


class Prepared(NamedTuple):
    """What a part of a step needs, before the device."""

    batch: Batch
    draws: Draws
    split: Split


@dataclass
class PretrainingStep:
    """Loss of a part of a global step. Nothing here waits for the device."""

    config: StudentConfig
    batches: FeatureBatches
    seed: int
    before: int = 0  # steps of earlier phases
    ready: Callable[[Place], Prepared] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.ready = self.prepare

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        repa = self.config.model.repa
        weight_of_repa = repa.weight_at(self.before + step) if repa else 0.0
        # Data-parallel processes need a gradient of every tensor, though it be 0.
        aligned = weight_of_repa > 0 or self.config.num_processes > 1
        device = next(model.parameters()).device

        def moved(x: Tensor) -> Tensor:
            return to_device(x, device)

        prepared = self.ready((step, part))
        batch, draws = prepared.batch.map(moved), prepared.draws.map(moved)
        losses: TokenLosses = model(
            batch.latents,
            batch.states,
            batch.lengths,
            prepared.split.map(moved),
            times=draws.times,
            noise=draws.noise,
            drop_text=draws.drop_text,
            features=batch.features if aligned else None,
        )
        # Parts have different numbers of masked tokens; the mean is over those of the batch.
        weight = part.count / draws.batch_total
        mse, vb = losses.mse.sum() * weight, losses.vb.sum() * weight
        loss, extras = mse + vb, {"mse": mse.detach(), "vb": vb.detach()}
        if losses.repa is not None:
            distance = losses.repa.mean()
            loss = loss + weight_of_repa * distance
            extras["repa"] = distance.detach()
        return loss, extras

    def prepare(self, place: Place) -> Prepared:
        """A pure function of the step and the part; the device is not asked for anything."""
        step, part = place
        rows = part.of(self.batches.batch_size)
        batch = self.batches.take(step, rows, row_generators(self.seed, step, rows))
        draws = draw(
            self.batches.batch_size,
            rows,
            batch.latents.shape[2] * batch.latents.shape[3] // self.config.model.patch_size**2,
            self.config.model,
            self.config.masking,
            self.seed,
            step,
        )
        split = Split.of(draws.mask)
        if not self.batches.text.pinned:
            return Prepared(batch.decoded(), draws, split)
        return Prepared(batch.map(pinned), draws.map(pinned), split.map(pinned))

    def expect(self, place: Place) -> None:
        step, part = place
        self.batches.expect(step, part.of(self.batches.batch_size))
