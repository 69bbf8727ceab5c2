"""One step of pre-training: the loss of the masked tokens of a part of a batch.

In:    a step's number, and which part of its global batch.
Out:   the loss, and its terms for the log; the mean over parts is the batch's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lightgen_model.model import Split, TokenLosses
from pipeline.batches import FeatureBatches
from pipeline.config import StudentConfig
from pipeline.draws import draw, row_generators, to_device
from pipeline.training import Part


@dataclass
class PretrainingStep:
    """Loss of a part of a global step. Nothing here waits for the device."""

    config: StudentConfig
    batches: FeatureBatches
    seed: int

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = part.of(self.batches.batch_size)
        generators = row_generators(self.seed, step, rows)
        batch = self.batches.take(step, rows, generators)
        draws = draw(
            self.batches.batch_size,
            rows,
            batch.latents.shape[2] * batch.latents.shape[3] // self.config.model.patch_size**2,
            self.config.model,
            self.config.masking,
            self.seed,
            step,
        )
        device = next(model.parameters()).device
        losses: TokenLosses = model(
            *(to_device(x, device) for x in batch[:3]),
            Split.of(draws.mask).map(lambda x: to_device(x, device)),
            times=to_device(draws.times, device),
            noise=to_device(draws.noise, device),
            drop_text=to_device(draws.drop_text, device),
            features=None if batch.features is None else to_device(batch.features, device),
        )
        # Parts have different numbers of masked tokens; the mean is over those of the batch.
        weight = part.count / draws.batch_total
        mse, vb = losses.mse.sum() * weight, losses.vb.sum() * weight
        loss, extras = mse + vb, {"mse": mse.detach(), "vb": vb.detach()}
        if losses.repa is not None and self.config.model.repa:
            distance = losses.repa.mean()
            loss = loss + self.config.model.repa.weight * distance
            extras["repa"] = distance.detach()
        return loss, extras
