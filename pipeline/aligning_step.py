"""One step of alignment: a batch of pairs, what is drawn for them, and the loss.

In:    pairs, the policy, and the reference's errors: from its network or from a table.
Out:   the loss of a part of a step's batch, and what is watched.

Winner and loser, policy and reference share masks, times and noise; dropout and text drop are off,
so the first step's loss is ln 2 exactly (lightgen.md 2.7).

Shapes: B pairs, T rows in the head.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
from pipeline.draws import Draws, draw, pinned, to_device
from pipeline.pair_draws import draw_pairs
from pipeline.pairs import Pairs
from pipeline.prefetch import Place
from pipeline.text_states import Padded
from pipeline.training import Part

# The first step compares equal weights; bf16 may round its loss, nothing else may move it.
FIRST_LOSS_TOLERANCE = 1e-3
# Errors that were measured in other batches differ by rounding: bf16 has three digits.
FIRST_ERROR_TOLERANCE = 1e-2


class Inputs(NamedTuple):
    """Winners, then losers where they are minded, on the device."""

    pairs: Rows  # (B,)
    number: int  # of the pairs' own draws
    given: tuple[Tensor, Tensor, Tensor, Split]  # latents, states, lengths, masks
    draws: Mapping[str, Tensor]


class PairBatch(NamedTuple):
    """The same before the device, with what winner and loser share once."""

    pairs: Rows  # (B,)
    number: int
    latents: Tensor  # (2 B, c, h, w), winners, then losers; (B, c, h, w) of winners alone
    text: Padded  # (B, L, E)
    lengths: Tensor  # (B,)
    split: Split  # of all latents
    draws: Draws  # of B

    def map(self, move: Callable[[Tensor], Tensor]) -> "PairBatch":
        return self._replace(
            latents=move(self.latents),
            text=self.text.map(move),
            lengths=move(self.lengths),
            split=self.split.map(move),
            draws=self.draws.map(move),
        )

    def decoded(self) -> "PairBatch":
        return self._replace(text=Padded(self.text.decoded()))


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
    ready: Callable[[Place], PairBatch] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.ready = self.prepare

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        values = self.config
        inputs = self.inputs(step, part, next(model.parameters()).device)
        with torch.no_grad():
            theirs = self.reference(inputs)
        own = errors_of(model, inputs, values.weighting, self.model.head)
        if self.sides == 1:
            return winners_alone(own, theirs[: len(own)], values.anchor)
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
        return on_device(self.ready((step, part)), device)

    def prepare(self, place: Place) -> PairBatch:
        """A pure function of the step and the part; the device is not asked for anything."""
        step, part = place
        size = self.config.batch_size
        everyone, mine = self.pairs.batch(size, self.config.seed, step), part.of(size)
        rows = everyone[list(mine)]
        longest = int(self.pairs.text.lengths[self.pairs.text_rows[everyone]].max())
        number = 0
        if self.config.draws_per_pair:
            number = step % self.config.draws_per_pair
            draws = self._own_draws(rows, number)
        else:
            seed = self.config.seed + 1
            draws = draw(size, mine, self.num_tokens, self.model, self.masking, seed, step)
        made = self._batch(rows, number, draws, longest, self.sides)
        return made.map(pinned) if self.pairs.text.pinned else made.decoded()

    def expect(self, place: Place) -> None:
        step, part = place
        everyone = self.pairs.batch(self.config.batch_size, self.config.seed, step)
        self.pairs.expect(everyone[list(part.of(self.config.batch_size))])

    def of_pairs(self, rows: Rows, number: int, device: torch.device) -> Inputs:
        """Some pairs with a draw of their own."""
        return on_device(self._batch(rows, number, self._own_draws(rows, number)), device)

    @property
    def sides(self) -> int:
        """2, winners and losers; 1 where a loss minds no loser, at half the work."""
        return 1 if self.config.loss == "sft" else 2

    @property
    def num_tokens(self) -> int:
        _, height, width = self.pairs.shape
        return height * width // self.model.patch_size**2

    def _own_draws(self, rows: Rows, number: int) -> Draws:
        pair_ids = [self.pairs.pair_ids[row] for row in rows]
        seed = self.config.seed + 1
        return draw_pairs(pair_ids, number, self.num_tokens, self.model, self.masking, seed)

    def _batch(
        self, rows: Rows, number: int, draws: Draws, longest: int = 0, sides: int = 2
    ) -> PairBatch:
        text_rows = self.pairs.text_rows[rows]
        states = self.pairs.text.padded(text_rows, longest)
        lengths = torch.from_numpy(self.pairs.text.lengths[text_rows])
        # Rows of the head run sample by sample, so the loser's draws repeat the winner's.
        split = Split.of(torch.cat([draws.mask] * sides))
        latents = torch.cat(self.pairs.take(rows)[:sides])
        return PairBatch(rows, number, latents, states, lengths, split, draws)


def on_device(made: PairBatch, device: torch.device) -> Inputs:
    """A batch where it is used; what winner and loser share is copied there once."""
    made = made.map(lambda x: to_device(x, device))
    states, lengths, draws = made.text.decoded(), made.lengths, made.draws
    sides = len(made.latents) // len(made.pairs)
    text = torch.cat([states] * sides), torch.cat([lengths] * sides)
    # No text is dropped; saying so gives the null text a gradient of zero, which DDP waits for.
    drop = torch.zeros_like(draws.drop_text)
    rest = {"times": draws.times, "noise": draws.noise, "drop_text": drop}
    repeated = {name: torch.cat([x] * sides) for name, x in rest.items()}
    return Inputs(made.pairs, made.number, (made.latents, *text, made.split), repeated)


def errors_of(network: nn.Module, inputs: Inputs, weighting: str, head: HeadConfig) -> Tensor:
    """A network's errors of winners, then of losers where there are any, (2 B,) or (B,)."""
    losses: TokenLosses = network(*inputs.given, **inputs.draws)
    if weighting == "noise" and head.kind == "flow":
        times = repeat(inputs.draws["times"], "t -> (t n)", n=head.noises_per_time)
        losses = replace(losses, mse=losses.mse * noise_weights(times))
    return losses.per_sample(len(inputs.given[0]))


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


def winners_alone(
    own: Tensor, reference: Tensor, anchor: float
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss of SFT, and what is watched without a loser; errors (B,)."""
    loss = own.mean()
    told = {"preference": loss, "winner_error": loss, "winner_drift": (own - reference).mean()}
    return loss * (1 + anchor), {name: value.detach() for name, value in told.items()}


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
