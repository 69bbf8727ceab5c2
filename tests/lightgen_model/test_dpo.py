"""DPO's loss with numbers one can check by hand (lightgen.md 5.4)."""

import math

import pytest
import torch

from lightgen_model.dpo import dpo_loss


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((0.2, 0.3, 0.2, 0.3), math.log(2)),
        ((0.2, 0.3, 0.2001, 0.3), 0.57593942),
        ((0.2, 0.3, 0.199, 0.3), 2.57888973),
    ],
)
def test_the_published_values(errors: tuple[float, ...], expected: float) -> None:
    tensors = [torch.tensor([error], dtype=torch.float64) for error in errors]
    assert dpo_loss(*tensors, beta=5000).loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_mean_is_taken_after_the_sigmoid() -> None:
    winner, loser = torch.tensor([0.0, 0.2]), torch.tensor([0.2, 0.0])
    zero = torch.zeros(2)
    out = dpo_loss(winner, loser, zero, zero, beta=100)
    assert out.loss.item() > 4  # a sigmoid of the mean would give ln 2
    assert out.accuracy.item() == 0.5


def test_drifts_are_measured_against_the_reference() -> None:
    tensors = [torch.tensor([value]) for value in (0.5, 0.9, 0.4, 0.7)]
    out = dpo_loss(*tensors, beta=1.0)
    assert out.winner_drift.item() == pytest.approx(0.1)
    assert out.loser_drift.item() == pytest.approx(0.2)
    assert out.accuracy.item() == 1.0
