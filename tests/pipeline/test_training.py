"""The training loop: it learns, it resumes bit for bit, it says when it breaks."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.checkpoints import read_rows
from pipeline.config import OptimizerConfig
from pipeline.training import (
    STATE,
    Schedule,
    Weights,
    decay_groups,
    fit,
    learning_rate,
    update_average,
)

OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, warmup_steps=3, decay="cosine", ema_decay=0.9, weight_decay=0.1
)


class Killed(BaseException):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.GELU(), nn.Linear(8, 1))


def step_loss(kill_at: int | None = None):  # type: ignore[no-untyped-def]
    def loss(model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        if step == kill_at:
            raise Killed
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        error = (model(x)[:, 0] - x.sum(1)).square().mean()
        return error, {"error": error.detach()}

    return loss


def train(folder: Path, kill_at: int | None = None, steps: int = 20) -> Weights:
    return fit(
        network(),
        step_loss(kill_at),
        OPTIMIZER,
        Schedule(steps, log_every=2, checkpoint_every=4, seed=5),
        folder,
        accelerator=Accelerator(cpu=True),
        samples_per_step=16,
    )


@pytest.mark.parametrize("kill_at", [1, 4, 11, 19])
def test_a_killed_training_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path: Path, kill_at: int
) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", kill_at)
    resumed = train(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = [read_rows(tmp_path / name / "log.jsonl") for name in ("whole", "killed")]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]] == list(range(2, 21, 2))
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path, kill_at=0)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("left", [0, 3, 1000, -1])
def test_a_damaged_state_is_named(tmp_path: Path, left: int) -> None:
    train(tmp_path, steps=4)
    state = tmp_path / STATE
    state.write_bytes(state.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"{state} is damaged"):
        train(tmp_path, steps=4)


def test_it_learns(tmp_path: Path) -> None:
    train(tmp_path, steps=200)
    rows = read_rows(tmp_path / "log.jsonl")
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    def bad(model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return model(torch.ones(1, 4)).sum() * math.nan, {}

    with pytest.raises(ValueError, match="the loss became nan at step 1"):
        fit(
            network(),
            bad,
            OPTIMIZER,
            Schedule(4, log_every=2, checkpoint_every=4),
            tmp_path,
            accelerator=Accelerator(cpu=True),
            samples_per_step=1,
        )


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    def bad_from_two_on(model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        return model(torch.ones(1, 4)).sum() * (math.nan if step >= 2 else 1.0), {}

    with pytest.raises(ValueError, match="the loss became nan at step 3"):
        fit(
            network(),
            bad_from_two_on,
            OPTIMIZER,
            Schedule(100, log_every=50, checkpoint_every=2),
            tmp_path,
            accelerator=Accelerator(cpu=True),
            samples_per_step=1,
        )
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


def test_the_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(OPTIMIZER, step, 23) for step in range(23)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert rates[3] == pytest.approx(1e-2)
    assert rates[13] == pytest.approx(0.5e-2)
    assert rates == sorted(rates[:3]) + sorted(rates[3:], reverse=True)
    constant = OptimizerConfig(learning_rate=1e-4)
    assert {learning_rate(constant, step, 9) for step in range(9)} == {1e-4}


def test_the_average_is_warmed_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = {"weight": torch.zeros(1, 1)}
    nn.init.ones_(model.weight)
    update_average(average, model, 0.9999, step=0)
    assert average["weight"].item() == pytest.approx(1 - 1 / 10)
    average = {"weight": torch.zeros(1, 1)}
    update_average(average, model, 0.9, step=10_000)
    assert average["weight"].item() == pytest.approx(0.1)


def test_vectors_and_the_head_are_not_decayed() -> None:
    model = nn.Module()
    model.body, model.head = nn.Linear(2, 3), nn.Linear(3, 2)
    decayed, plain = decay_groups(model, 0.02)
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0
