"""One step of alignment: a batch of pairs, what is drawn for them, and the loss.

In:    pairs, the policy, and the reference's errors: from its network or from a table.
Out:   the loss of a part of a step's batch, and what is watched.

Winner and loser, policy and reference share masks, times and noise; dropout and text drop are off,
so the first step's loss is ln 2 exactly (lightgen.md 2.7).

Shapes: B pairs, T rows in the head.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import repeat
from numpy.typing import NDArray
from torch import Tensor, nn

from lightgen_model.config import HeadConfig, ModelConfig
from lightgen_model.dpo import dpo_loss, noise_weights
from lightgen_model.model import LightGen, Split, TokenLosses
from pipeline.batches import Rows
from pipeline.config import DpoConfig, MaskingConfig
from pipeline.draws import Draws, draw, to_device
from pipeline.pair_draws import draw_pairs
from pipeline.pairs import Pairs
from pipeline.training import Part

# The first step compares equal weights; bf16 may round its loss, nothing else may move it.
FIRST_LOSS_TOLERANCE = 1e-3
# Errors that were measured in other batches differ by rounding: bf16 has three digits.
FIRST_ERROR_TOLERANCE = 1e-2


class Inputs(NamedTuple):
    """Winners, then losers, on the device."""

    pairs: Rows  # (B,)
    number: int  # of the pairs' own draws
    given: tuple[Tensor, Tensor, Tensor, Split]  # latents, states, lengths, masks
    draws: Mapping[str, Tensor]


class Reference(Protocol):
    def __call__(self, inputs: Inputs) -> Tensor:
        """Errors of winners, then of losers, (2 B,)."""
        ...


@dataclass
class DpoStep:
    config: DpoConfig
    masking: MaskingConfig
    model: ModelConfig
    pairs: Pairs
    reference: Reference
    starts_equal: bool = True  # the policy starts as the reference

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        values = self.config
        inputs = self.inputs(step, part, next(model.parameters()).device)
        with torch.no_grad():
            theirs = self.reference(inputs)
        own = errors_of(model, inputs, values.weighting, self.model.head)
        winner, loser, winner_reference, loser_reference = *own.chunk(2), *theirs.chunk(2)
        beta = beta_at(values, step)
        out = dpo_loss(
            winner,
            loser,
            winner_reference,
            loser_reference,
            beta,
            kind=values.loss,
            anchor=values.anchor,
        )
        if step == 0 and self.starts_equal:
            check_first(own, theirs, beta, exact=values.reference_errors == "live")
        told = {
            "preference": out.preference,
            "accuracy": out.accuracy,
            "margin": out.margin,
            "winner_drift": out.winner_drift,
            "loser_drift": out.loser_drift,
            "winner_error": winner.mean(),
            "loser_error": loser.mean(),
            "kl": out.kl,
        }
        return out.loss, {name: value.detach() for name, value in told.items()}

    def inputs(self, step: int, part: Part, device: torch.device) -> Inputs:
        """What a part of a step's batch is made of."""
        size = self.config.batch_size
        everyone = self.pairs.batch(size, self.config.seed, step)
        mine = part.of(size)
        rows = everyone[list(mine)]
        longest = int(self.pairs.text.lengths[self.pairs.text_rows[everyone]].max())
        if self.config.draws_per_pair:
            number = step % self.config.draws_per_pair
            return self.of_pairs(rows, number, device, longest)
        seed = self.config.seed + 1
        draws = draw(size, mine, self.num_tokens, self.model, self.masking, seed, step)
        return self._on_device(rows, 0, draws, longest, device)

    def of_pairs(self, rows: Rows, number: int, device: torch.device, longest: int = 0) -> Inputs:
        """Some pairs with a draw of their own."""
        pair_ids = [self.pairs.pair_ids[row] for row in rows]
        seed = self.config.seed + 1
        draws = draw_pairs(pair_ids, number, self.num_tokens, self.model, self.masking, seed)
        return self._on_device(rows, number, draws, longest, device)

    @property
    def num_tokens(self) -> int:
        _, height, width = self.pairs.shape
        return height * width // self.model.patch_size**2

    def _on_device(
        self, rows: Rows, number: int, draws: Draws, longest: int, device: torch.device
    ) -> Inputs:
        states, lengths = self.pairs.text.take(self.pairs.text_rows[rows], longest)
        winners, losers = self.pairs.take(rows)
        # Rows of the head run sample by sample, so the loser's draws repeat the winner's.
        split = Split.of(torch.cat([draws.mask] * 2)).map(lambda x: to_device(x, device))
        given = (
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
        both = {n: to_device(torch.cat([x, x]), device) for n, x in rest.items()}
        return Inputs(rows, number, given, both)


def errors_of(network: nn.Module, inputs: Inputs, weighting: str, head: HeadConfig) -> Tensor:
    """A network's errors of winners, then of losers, (2 B,)."""
    losses: TokenLosses = network(*inputs.given, **inputs.draws)
    if weighting == "noise" and head.kind == "flow":
        times = repeat(inputs.draws["times"], "t -> (t n)", n=head.noises_per_time)
        losses = replace(losses, mse=losses.mse * noise_weights(times))
    return losses.per_sample(2 * len(inputs.pairs))


@dataclass(frozen=True)
class LiveReference:
    """A second network beside the policy."""

    network: LightGen
    weighting: str = "as_trained"

    def __call__(self, inputs: Inputs) -> Tensor:
        return errors_of(self.network, inputs, self.weighting, self.network.config.head)


@dataclass(frozen=True)
class MeasuredReference:
    """Errors (P, draws, 2) that were measured before."""

    errors: NDArray[np.float32]

    def __call__(self, inputs: Inputs) -> Tensor:
        found = self.errors[inputs.pairs, inputs.number]  # (B, 2)
        return torch.from_numpy(found).T.flatten().to(inputs.given[0].device)


def beta_at(config: DpoConfig, step: int) -> float:
    """Beta at a step: from `beta` to `beta_end` by equal factors."""
    if config.beta_end is None or config.steps < 2:
        return config.beta
    return float(config.beta * (config.beta_end / config.beta) ** (step / (config.steps - 1)))


def check_first(errors: Tensor, reference: Tensor, beta: float, *, exact: bool) -> None:
    """ValueError where the policy does not start as the reference; `exact`: in the same batch."""
    winner, loser = (errors.detach() - reference).chunk(2)
    loss = float(F.softplus(0.5 * beta * (winner - loser)).mean())
    if exact and abs(loss - math.log(2)) > FIRST_LOSS_TOLERANCE:
        raise ValueError(f"the first DPO loss is {loss:.6f}, not ln 2: policy and reference differ")
    apart = float((errors.detach() - reference).abs().mean() / reference.mean())
    if apart > FIRST_ERROR_TOLERANCE:
        raise ValueError(
            f"the first errors are {apart:.1%} away from the reference's: policy and reference "
            "differ"
        )
