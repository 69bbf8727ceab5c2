"""Seconds by hand: counted work over a share of a device's peak, or pieces over a rate."""

from typing import Any

import pytest

from pipeline.config import load_run
from pipeline.rates import DEVICES, ON_CUDA, SHAPES, Rate
from pipeline.work import Effort, rate_of

A100 = DEVICES["cuda"]


def effort(rate: dict[str, Any], **values: Any) -> Effort:
    return Effort("drawn", "draw", 100, Rate(source="us", **rate), A100, **values)


def test_seconds_by_hand() -> None:
    assert effort({"per_second": 4}).seconds == 25
    # 100 pieces of 3.12 TFLOP at half of 312 TFLOP/s.
    assert effort({"mfu": 0.5}, tflop=3.12).seconds == pytest.approx(2.0)
    assert effort({"mfu": 0.5, "tflop": 6.24}, tflop=3.12).seconds == pytest.approx(4.0)
    assert effort({"mfu": 0.5}).seconds is None


def test_a_rate_at_a_size_holds_for_others_by_their_pixels() -> None:
    assert effort({"per_second": 4, "at_px": 512}, size=1024).seconds == 100
    assert effort({"mfu": 0.5, "tflop": 3.12, "at_px": 512}, size=256).seconds == pytest.approx(0.5)


def test_what_is_told_names_rate_and_source() -> None:
    assert effort({"per_second": 3800}).told == "3,800 a second"
    counted = effort({"mfu": 0.4}, tflop=75.6)
    assert counted.told == "75.6 TFLOP at 40% of its peak"
    assert counted.source == "counted; share us"
    assert effort({"mfu": 0.4}, tflop=0.0006).told == "0.6 GFLOP at 40% of its peak"
    assert effort({"mfu": 0.4}).told == "not counted: state plan.rates.draw"


def test_the_runs_own_rate_comes_first_then_that_of_what_does_the_work() -> None:
    own = {"plan.rates": {"judge": {"per_second": 9, "source": "ours"}}}
    assert rate_of(load_run("full", own), "judge").per_second == 9
    assert rate_of(load_run("full"), "judge") == ON_CUDA["judge"]
    assert rate_of(load_run("tiny"), "judge") == SHAPES["judge"]
    assert rate_of(load_run("models"), "judge").per_second is None
