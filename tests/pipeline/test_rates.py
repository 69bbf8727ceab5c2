"""Rates are one thing or the other, name their source, and wrong ones are named."""

from typing import Any, get_args

import pytest

from pipeline.config import load_run
from pipeline.rates import DEVICES, ON_CPU, ON_CUDA, SHAPES, PlanConfig, Rate, Work


@pytest.mark.parametrize("rates", [ON_CPU, ON_CUDA], ids=["cpu", "cuda"])
def test_every_kind_of_work_has_a_default_with_its_source(rates: dict[Work, Rate]) -> None:
    assert set(rates) == set(get_args(Work))
    for rate in [*rates.values(), *SHAPES.values()]:
        words = ("measured", "stated", "counted", "part of")
        assert rate.source.startswith(words), rate.source
    assert all("stated" in device.source for device in DEVICES.values())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"plan.rates": {"draw": {"source": "us"}}}, ["plan.rates.draw", "one of them"]),
        (
            {"plan.rates": {"draw": {"per_second": 1, "mfu": 0.3, "source": "us"}}},
            ["plan.rates.draw", "per_second 1.0, mfu 0.3"],
        ),
        (
            {"plan.rates": {"draw": {"per_second": 1, "tflop": 2, "source": "us"}}},
            ["plan.rates.draw", "tflop: 2.0", "give mfu"],
        ),
        ({"plan.rates": {"draw": {"per_second": 1}}}, ["plan.rates.draw.source", "required"]),
        ({"plan.rates": {"paint": {"per_second": 1, "source": "us"}}}, ["paint", "'draw'"]),
        ({"plan.rates": {"draw": {"per_second": 0, "source": "us"}}}, ["greater than 0"]),
        ({"plan.device.price_per_hour": -1}, ["plan.device.price_per_hour", "got -1"]),
        ({"plan.device.peak_tflops": 0}, ["plan.device.peak_tflops", "greater than 0"]),
        ({"plan.device.currency": "dollars"}, ["plan.device.currency", "'dollars'"]),
        ({"plan.kept.verdicts": 1.5}, ["plan.kept.verdicts", "less than or equal to 1"]),
        ({"plan.devices": 0}, ["plan.devices", "got 0"]),
        ({"plan.device.prise": 2}, ["plan.device.prise", "price_per_hour"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_itself(overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"full\.yaml") as caught:
        load_run("full", overrides)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_plan_is_a_value_that_can_be_hashed() -> None:
    one, other = PlanConfig(source_rows={"a": 1}), PlanConfig(source_rows={"a": 2})
    assert hash(one) == hash(PlanConfig(source_rows={"a": 1})) != hash(other)
