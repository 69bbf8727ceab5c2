"""What stages do, counted: against the specification and against measured runs."""

import pytest

from pipeline.config import RunConfig, load_run
from pipeline.efforts import efforts, forward_tflop
from pipeline.expected import expected


def test_the_students_forward_pass_is_the_specs() -> None:
    """lightgen.md 3.4 in GFLOP, cross and head on the 86.7 % that are masked."""
    run = load_run("full")
    at_256 = 13.6 + 107.4 + 85.4 + 21.1 + 182.1
    at_512 = 56.4 + 481.3 + 315.8 + 21.1 + 728.2
    assert forward_tflop(run, 256) * 1000 == pytest.approx(at_256, rel=1e-3)
    assert forward_tflop(run, 512) * 1000 == pytest.approx(at_512, rel=1e-3)


def test_recomputed_activations_are_paid_for() -> None:
    plain = {"student.checkpoint_activations": False, "dpo.checkpoint_activations": False}
    rows = expected(load_run("full"))
    given, without = efforts(load_run("full"), rows), efforts(load_run("full", plain), rows)
    assert given["student"][0].seconds == pytest.approx(
        (without["student"][0].seconds or 0) * 4 / 3
    )
    assert given["dpo"][0].seconds == pytest.approx((without["dpo"][0].seconds or 0) * 5 / 4)


def test_a_model_without_counted_work_has_no_time() -> None:
    other = load_run("full", {"images.teacher.repository": "Qwen/Qwen-Image"})
    (drawn,) = efforts(other, expected(other))["images"]
    assert drawn.seconds is None
    stated = {"plan.rates": {"draw": {"per_second": 0.5, "at_px": 1024, "source": "ours"}}}
    other = load_run("full", {"images.teacher.repository": "Qwen/Qwen-Image", **stated})
    (drawn,) = efforts(other, expected(other))["images"]
    assert drawn.seconds == pytest.approx(2_000_000 / 4 / 0.5)


def test_the_measured_tiny_run_is_what_its_rates_say(measured_tiny: RunConfig) -> None:
    """Seconds of two uninterrupted runs on two cores, with start-up: 960 and 1,011 the student."""
    given = efforts(measured_tiny, expected(measured_tiny))
    found = {stage: sum(each.seconds or 0 for each in parts) for stage, parts in given.items()}
    measured = {"features": 33, "student": 985, "preferences": 169, "dpo": 100, "evaluate": 127}
    assert {stage: found[stage] for stage in measured} == pytest.approx(measured, rel=0.12)
