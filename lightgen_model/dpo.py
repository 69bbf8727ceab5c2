"""Preference losses as pure functions of four error tensors.

In:    mean squared errors of winner and loser, of policy and frozen reference, (B,) each, taken
       with the same masks, times and noise.
Out:   the loss and what to watch beside it.

A reward is how much smaller the policy's error is than the reference's, times beta / 2: that of
Diffusion-DPO (arXiv 2311.12908, equation 14), with T and w(t) folded into beta (lightgen.md 2.7).
The other losses are functions of the same rewards.

For a flow head the errors are those of the velocity v = noise - x. At time t the noise's error is
(1 - t) times the velocity's, so equation 14 holds for velocities with weights (1 - t)^2; without
weights beta is the same at all times, as the head was trained (Flow-DPO, arXiv 2501.13918, reports
that better).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("dpo", "ipo", "kto", "sft")  # sft: the winner's error alone, to compare with


@dataclass(frozen=True)
class DpoLoss:
    loss: Tensor  # ()
    preference: Tensor  # () the loss without its anchor
    accuracy: Tensor  # () share of pairs that the policy orders better than the reference
    margin: Tensor  # () mean difference of the rewards
    winner_drift: Tensor  # () winner error against the reference; rising is the known failure
    loser_drift: Tensor  # ()

    @property
    def kl(self) -> Tensor:
        """How much worse the policy explains the pictures than the reference does.

        Where the reference drew both, this is KL(reference || policy) up to the folded factor.
        """
        return (self.winner_drift + self.loser_drift) / 2


def dpo_loss(
    winner: Tensor,
    loser: Tensor,
    winner_reference: Tensor,
    loser_reference: Tensor,
    beta: float,
    *,
    kind: str = "dpo",
    anchor: float = 0.0,
) -> DpoLoss:
    """Mean preference loss plus `anchor` times the winner's error; ValueError for another kind."""
    winner_drift, loser_drift = winner - winner_reference, loser - loser_reference
    margin = -0.5 * beta * (winner_drift - loser_drift)  # (B,)
    match kind:
        case "dpo":
            losses = -F.logsigmoid(margin)
        case "ipo":
            losses = ipo(margin)
        case "kto":
            losses = kto(-0.5 * beta * winner_drift, -0.5 * beta * loser_drift)
        case "sft":
            losses = winner
        case _:
            raise ValueError(f"preference loss {kind!r}; allowed: {', '.join(LOSSES)}")
    loss = losses.mean()
    return DpoLoss(
        loss=loss + anchor * winner.mean() if anchor else loss,
        preference=loss,
        accuracy=(margin > 0).float().mean(),
        margin=margin.mean(),
        winner_drift=winner_drift.mean(),
        loser_drift=loser_drift.mean(),
    )


def ipo(margin: Tensor) -> Tensor:
    """Squared distance of the margin to a half: it is satisfied where DPO never is.

    Equation 17 of arXiv 2310.12036 with tau = beta, times beta squared.
    """
    return (margin - 0.5).square()


def kto(winner: Tensor, loser: Tensor) -> Tensor:
    """Each side alone against the mean reward of these rows, which gets no gradient.

    KTO (arXiv 2402.01306) with equal weights of both sides; no mean below zero.
    """
    middle = torch.cat([winner, loser]).detach().mean().clamp(min=0)
    return (torch.sigmoid(middle - winner) + torch.sigmoid(loser - middle)) / 2


def noise_weights(times: Tensor) -> Tensor:
    """What makes a velocity's squared error the noise's at flow times (T,) in 0..1."""
    return (1 - times).square()
