"""Diffusion-DPO (arXiv 2311.12908, equation 14) as a pure function of four error tensors.

In:    mean squared errors of winner and loser, of policy and frozen reference, (B,) each, taken
       with the same masks, times and noise.
Out:   the loss and what to watch beside it.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class DpoLoss:
    loss: Tensor  # ()
    accuracy: Tensor  # () share of pairs that the policy orders better than the reference
    winner_drift: Tensor  # () winner error against the reference; rising is the known failure
    loser_drift: Tensor  # ()


def dpo_loss(
    winner: Tensor, loser: Tensor, winner_reference: Tensor, loser_reference: Tensor, beta: float
) -> DpoLoss:
    """Mean of -log sigmoid of the margin; T and w(t) are folded into `beta` (lightgen.md 2.7)."""
    winner_drift, loser_drift = winner - winner_reference, loser - loser_reference
    margin = -0.5 * beta * (winner_drift - loser_drift)  # (B,)
    return DpoLoss(
        loss=-F.logsigmoid(margin).mean(),
        accuracy=(margin > 0).float().mean(),
        winner_drift=winner_drift.mean(),
        loser_drift=loser_drift.mean(),
    )
