"""DPO's loss with numbers one can check by hand (lightgen.md 5.4)."""

import math

import pytest
import torch

from lightgen_model.dpo import LOSSES, dpo_loss


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


def random_errors(number: int = 5) -> list[torch.Tensor]:
    """Errors of winner, loser and of the reference on both, (B,) each."""
    draws = torch.rand(4, number, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [row.clone().requires_grad_(True) for row in draws]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # beta 10: rewards 0.5 and -0.5, so the margin is 1 and the mean reward 0
        ("dpo", math.log(1 + math.exp(-1))),
        ("ipo", (1 - 0.5) ** 2),
        ("kto", 1 - 1 / (1 + math.exp(-0.5))),
        ("sft", 0.2),
    ],
)
def test_each_loss_by_hand(kind: str, expected: float) -> None:
    tensors = [torch.tensor([error], dtype=torch.float64) for error in (0.2, 0.4, 0.3, 0.3)]
    out = dpo_loss(*tensors, beta=10, kind=kind)
    assert out.loss.item() == pytest.approx(expected, rel=1e-9)
    assert out.margin.item() == pytest.approx(1)
    assert out.kl.item() == pytest.approx(0)


@pytest.mark.parametrize(("kind", "expected"), [("dpo", math.log(2)), ("ipo", 0.25), ("kto", 0.5)])
def test_equal_networks_have_a_known_loss(kind: str, expected: float) -> None:
    winner, loser = random_errors()[:2]
    out = dpo_loss(winner, loser, winner, loser, beta=5000, kind=kind)
    assert out.loss.item() == pytest.approx(expected)


def plain(kind: str, *errors: torch.Tensor, beta: float) -> torch.Tensor:
    """Pair by pair, written out from the papers' formulas."""
    rewards = [
        (beta / 2 * (winner_reference - winner), beta / 2 * (loser_reference - loser))
        for winner, loser, winner_reference, loser_reference in zip(*errors, strict=True)
    ]
    middle = max(sum(a.item() + b.item() for a, b in rewards) / (2 * len(rewards)), 0.0)
    total = torch.zeros((), dtype=torch.float64)
    for win, lose in rewards:
        if kind == "dpo":
            total = total + torch.log(1 + torch.exp(lose - win))
        elif kind == "ipo":
            total = total + beta**2 * ((win - lose) / beta - 1 / (2 * beta)) ** 2
        elif kind == "kto":
            good = 1 / (1 + torch.exp(middle - win))
            bad = 1 / (1 + torch.exp(lose - middle))
            total = total + (1 - good) / 2 + (1 - bad) / 2
    if kind == "sft":
        total = sum(errors[0])
    return total / len(rewards)


@pytest.mark.parametrize("anchor", [0.0, 0.7])
@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_gradient_are_those_of_the_plain_formula(kind: str, anchor: float) -> None:
    ours, theirs = random_errors(), random_errors()
    loss = dpo_loss(*ours, beta=8.0, kind=kind, anchor=anchor).loss
    expected = plain(kind, *theirs, beta=8.0) + anchor * sum(theirs[0]) / len(theirs[0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    mine, other = (
        torch.autograd.grad(value, errors[:2], allow_unused=True, materialize_grads=True)
        for value, errors in ((loss, ours), (expected, theirs))
    )
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(mine, other, strict=True))


def test_the_anchor_pulls_the_winners_error_down_where_the_preference_is_content() -> None:
    tensors = [torch.tensor([value], requires_grad=True) for value in (0.5, 90.0, 0.5, 0.5)]
    dpo_loss(*tensors, beta=5000, anchor=0.3).loss.backward()
    assert tensors[0].grad.item() == pytest.approx(0.3)


def test_a_loss_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="preference loss 'ppo'; allowed: dpo, ipo, kto, sft"):
        dpo_loss(*random_errors(), beta=1, kind="ppo")
