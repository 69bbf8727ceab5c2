"""The training loop: it learns, it resumes bit for bit, it outlives bad steps and says so."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.checkpoints import read_rows
from pipeline.config import LoopConfig, OptimizerConfig
from pipeline.parallel import Weights
from pipeline.states import saved
from pipeline.training import Part, Schedule, fit

OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, warmup_steps=3, decay="cosine", ema_decay=0.9, weight_decay=0.1
)
ROWS = 16


class Killed(BaseException):
    pass


class Network(nn.Module):
    """Its middle matrix has the name that Muon looks for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.blocks = nn.ModuleList([nn.Linear(8, 8)])
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.gelu(self.blocks[0](self.dropout(self.first(x)))))


def step_loss(kill_at: int | None = None, bad: Mapping[int, float] | None = None):  # type: ignore[no-untyped-def]
    def loss(model: nn.Module, step: int, part: Part) -> tuple[Tensor, Mapping[str, Tensor]]:
        if step == kill_at:
            raise Killed
        x = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(step))
        x = x[list(part.of(ROWS))]
        error = (model(x)[:, 0] - x.sum(1)).square().mean() * (bad or {}).get(step, 1.0)
        return error, {"error": error.detach()}

    return loss


def train(
    folder: Path,
    loss: Any = None,
    *,
    steps: int = 20,
    optimizer: OptimizerConfig = OPTIMIZER,
    model: nn.Module | None = None,
    **loop: Any,
) -> Weights:
    return fit(
        model or Network(),
        loss or step_loss(),
        optimizer,
        LoopConfig(**({"log_every": 2, "checkpoint_every": 4} | loop)),
        Schedule(steps, ROWS, seed=5),
        folder,
        accelerator=Accelerator(cpu=True),
    )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("kill_at", [1, 4, 11, 19])
def test_a_killed_training_ends_bit_for_bit_where_an_uninterrupted_one_does(
    tmp_path: Path, kill_at: int, kind: str
) -> None:
    optimizer = OPTIMIZER.model_copy(update={"kind": kind})
    values: dict[str, Any] = {"optimizer": optimizer, "accumulation": 2}
    bad = {3: math.nan, 10: math.inf}
    whole = train(tmp_path / "whole", step_loss(bad=bad), **values)
    with pytest.raises(Killed):
        train(tmp_path / "killed", step_loss(kill_at, bad), **values)
    resumed = train(tmp_path / "killed", step_loss(bad=bad), **values)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    rows = [read_rows(tmp_path / name / "log.jsonl") for name in ("whole", "killed")]
    assert [r["step"] for r in rows[0]] == [r["step"] for r in rows[1]] == list(range(2, 21, 2))
    assert [r["skipped"] for r in rows[0]] == [r["skipped"] for r in rows[1]]
    assert rows[0][-1]["skipped"] == 2


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    first = train(tmp_path)
    again = train(tmp_path, step_loss(kill_at=0))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_it_learns(tmp_path: Path) -> None:
    for kind in ("adamw", "muon"):
        optimizer = OPTIMIZER.model_copy(update={"kind": kind})
        train(tmp_path / kind, steps=200, optimizer=optimizer)
        rows = read_rows(tmp_path / kind / "log.jsonl")
        assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]


def test_accumulated_parts_are_the_whole_batch(tmp_path: Path) -> None:
    models = [Network().eval() for _ in range(2)]
    for model, parts in zip(models, (1, 4), strict=True):
        train(tmp_path / str(parts), model=model, accumulation=parts)
    rows = [read_rows(tmp_path / name / "log.jsonl") for name in ("1", "4")]
    losses = [[row["loss"] for row in each] for each in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    weights = [model.state_dict() for model in models]
    assert all(torch.allclose(weights[0][n], weights[1][n], atol=1e-4) for n in weights[0])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_step_changes_nothing_and_is_counted(tmp_path: Path, kind: str, value: float) -> None:
    optimizer = OptimizerConfig(kind=kind, learning_rate=1e-2, ema_decay=0)  # type: ignore[arg-type]
    model, other = Network().eval(), Network().eval()
    train(tmp_path / "a", step_loss(bad={3: value}), steps=4, optimizer=optimizer, model=model)
    train(tmp_path / "b", steps=3, optimizer=optimizer, model=other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    states = [torch.load(saved(tmp_path / name)[-1], weights_only=True) for name in "ab"]
    moments = [torch.cat([v.flatten() for v in tensors(s["optimizer"])]) for s in states]
    assert torch.equal(*moments)
    last = read_rows(tmp_path / "a" / "log.jsonl")[-1]
    assert (last["step"], last["skipped"]) == (4, 1)
    assert math.isfinite(last["loss"])


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return (
        [t for below in value.values() for t in tensors(below)] if isinstance(value, dict) else []
    )


def test_too_many_bad_steps_in_a_row_name_the_last_good_state(tmp_path: Path) -> None:
    bad = dict.fromkeys(range(5, 100), math.nan)
    with pytest.raises(ValueError, match=r"4 steps in a row .*state-000000008.pt holds the last"):
        train(tmp_path, step_loss(bad=bad), steps=100, max_skipped=3, log_every=50)
    state = torch.load(saved(tmp_path)[-1], weights_only=True)
    assert state["step"] == 8  # three bad steps are allowed, and the weights are those of step 5
    assert all(value.isfinite().all() for value in state["model"].values())


def test_as_many_bad_steps_as_are_allowed_are_survived(tmp_path: Path) -> None:
    bad = dict.fromkeys((2, 3, 4, 8, 9, 10), math.nan)
    train(tmp_path, step_loss(bad=bad), max_skipped=3)
    assert read_rows(tmp_path / "log.jsonl")[-1]["skipped"] == 6
    with pytest.raises(ValueError, match=r"1 steps in a row up to step 2 .*no state was saved"):
        train(tmp_path / "strict", step_loss(bad=bad), max_skipped=0)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 8 does not divide by 3"):
        Part(0, 3).of(8)
    assert [list(Part(n, 2).of(4)) for n in range(2)] == [[0, 1], [2, 3]]


def test_it_ends_where_it_is_told_to_and_again_after_a_kill(tmp_path: Path) -> None:
    def run(folder: Path, loss: Any, optimizer: OptimizerConfig = OPTIMIZER) -> Weights:
        schedule = Schedule(
            20, ROWS, seed=5, stop=lambda row: "far enough" if row["step"] >= 10 else ""
        )
        loop = LoopConfig(log_every=2, checkpoint_every=4)
        place = Accelerator(cpu=True)
        return fit(Network(), loss, optimizer, loop, schedule, folder, accelerator=place)

    whole = run(tmp_path / "whole", step_loss())
    with pytest.raises(Killed):
        run(tmp_path / "killed", step_loss(kill_at=9))
    again = run(tmp_path / "killed", step_loss())
    assert [row["step"] for row in read_rows(tmp_path / "killed/log.jsonl")] == [2, 4, 6, 8, 10]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
