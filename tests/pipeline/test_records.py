"""What a training tells: trackers, pace, the last step that counted."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, on_main_process

from pipeline import records
from pipeline.records import Pace, Records, trackers


class Memory(GeneralTracker):
    name, requires_logging_directory = "memory", False

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, Any]]] = []

    @property
    def tracker(self) -> "Memory":
        return self

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        pass

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        assert step is not None
        self.rows.append((step, values))


def test_rows_reach_the_trackers_and_a_bad_step_hides_behind_the_last_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Memory()
    accelerator = Accelerator(cpu=True, log_with=memory)
    accelerator.init_trackers("student")
    told = Records(tmp_path, 4, 0, Pace(8), "test", accelerator)
    for loss in (2.0, math.nan):
        told.remember({"loss": torch.tensor(loss)}, torch.tensor(float(math.isnan(loss))))
    told.write(2, {"lr": 0.1, "skipped": 1})
    ((step, values),) = memory.rows
    assert step == 2
    assert values[f"{tmp_path.name}/loss"] == 2.0
    assert values[f"{tmp_path.name}/skipped"] == 1
    assert '"loss": 2.0' in capsys.readouterr().out


def test_mfu_is_told_where_the_peak_is_known() -> None:
    assert Pace(10, 1e9, 1e12).told(5, 2.0) == {"samples_per_second": 25.0, "mfu": 0.025}
    assert Pace(10, 1e9).told(5, 2.0) == {"samples_per_second": 25.0}


def test_a_pause_is_not_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    told = Records(tmp_path, 4, 0, Pace(8), "test", Accelerator(cpu=True))
    now[0] = 2.0
    with told.paused():
        now[0] = 100.0
    told.remember({"loss": torch.tensor(1.0)}, torch.tensor(0.0))
    told.write(1, {})
    assert '"samples_per_second": 4.0' in (tmp_path / records.LOG).read_text()


@pytest.mark.parametrize("installed", [True, False])
def test_a_tracker_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    found = importlib.util.find_spec("json") if installed else None
    monkeypatch.setattr(records, "find_spec", lambda name: found)
    assert trackers("none") == []
    assert trackers("auto") == (["tensorboard"] if installed else [])
    if installed:
        assert trackers("tensorboard") == ["tensorboard"]
    else:
        with pytest.raises(
            ValueError, match=r"tracker: tensorboard is not installed; .*'tracking'"
        ):
            trackers("tensorboard")
