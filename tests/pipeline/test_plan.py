"""The plan: hours and money by hand, never less for more, nothing for what is there."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.already import There
from pipeline.config import RunConfig, load_run
from pipeline.expected import Counted
from pipeline.plan import Plan, a100_days, build_plan, disk_missing, paper_seconds, plan_of
from pipeline.tables import Manifest

RATES = {
    work: {"per_second": rate, "source": "by hand"}
    for work, rate in {
        "screen": 100, "draw": 10, "judge": 20, "text": 50, "latents": 25, "decode": 1000,
        "train": 40, "align": 4, "sample": 2, "score": 100,
    }.items()
}  # fmt: skip
BY_HAND = {
    "plan.rates": RATES,
    "plan.device.price_per_hour": 3.6,  # 0.001 a second
    "plan.kept": {"captions": 0.5, "verdicts": 0.75, "preferences": 1.0},
    "captions.sources.0.num_captions": 1000,
    "images.max_captions": {128: 100},
    "images.seeds_per_caption": 1,
    "student.phases": [
        {"image_size": 64, "steps": 10, "batch_size": 8, "optimizer": {"learning_rate": 0.1}}
    ],
    "student.sample_every": 10,
    "preferences.num_captions": 50,
    "dpo.steps": 3,
    "dpo.batch_size": 8,
    "evaluation.evaluators": [{"kind": "shapes", "prompts_per_task": 5, "images_per_prompt": 1}],
}


@pytest.fixture(scope="module")
def small() -> RunConfig:
    return load_run("tiny", BY_HAND)


def test_the_hours_of_a_small_run_by_hand(small: RunConfig) -> None:
    plan = build_plan(small)
    # 500 captions; 500 pictures of 64 px and 100 of 128 px, of which three quarters are kept.
    texts = 500 * 0.75
    looks = 2 * 30 / 2  # at the start and the end, 6 tasks of 5 prompts, 2 a second
    drawn = {"preferences": 50 * 4, "evaluate": 3 * 30}
    by_hand = {
        "captions": 1000 / 100,
        "images": 600 / 10,
        "verdicts": 600 / 20,
        "features": texts / 50 + 600 * 0.75 / 25,
        "student": 80 / 40 + looks,
        "preferences": drawn["preferences"] * (1 / 50 + 1 / 2 + 1 / 1000 + 1 / 25 + 1 / 20),
        "dpo": 24 / 4,
        "evaluate": drawn["evaluate"] * (1 / 50 + 1 / 2 + 1 / 1000 + 1 / 100),
    }
    assert {line.stage: line.seconds for line in plan.lines} == pytest.approx(by_hand)
    assert plan.seconds == pytest.approx(sum(by_hand.values()))
    assert plan.money(plan.seconds) == pytest.approx(sum(by_hand.values()) / 1000)
    assert plan.is_whole


def test_the_full_runs_hours_are_those_by_hand() -> None:
    """312 TFLOP/s at 40 %, in drawing 20 %, in convolutions 30 %, in judging 25 %; GFLOP of
    lightgen.md 3.3 and 3.4, four forward passes where activations are recomputed."""
    plan = build_plan(load_run("full"))
    busy = 312e12 * 0.40
    student = (204.8e6 * 4 * 409.6e9 + 20.48e6 * 4 * 1602.8e9) / busy
    looks = (3024 * 19.68e12 + 288 * 82.58e12) / (busy / 2)
    hours = {
        "images": 2e6 * (4 * 17.67e12 + 2.38e12 + 2.515e12) / busy / 3600,
        "verdicts": 2e6 * 11.6e12 / (312e12 * 0.25) / 3600,
        # 30 % short captions of 13 tokens, 70 % long ones of 84, beside others of their length.
        "features": 1.6e6
        * (1.19e12 * 62.7 / 128 / busy + (1.118e12 + 0.2795e12) / (312e12 * 0.3))
        / 3600,
        "student": (student + looks) / 3600,
        "dpo": 2000 * 2048 * 2 * 5 * 1602.8e9 / busy / 3600,
    }
    found = {stage: (plan.line(stage).seconds or 0) / 3600 for stage in hours}
    assert found == pytest.approx(hours, rel=2e-3)
    assert found["student"] == pytest.approx(1039.7, rel=1e-3)
    assert plan.money(plan.line("student").seconds or 0) == pytest.approx(2 * 1039.7, rel=1e-3)
    assert plan.students_device_days == pytest.approx(51.7, abs=0.1)


def test_what_nothing_tells_is_in_no_sum_and_has_a_sentence() -> None:
    plan = build_plan(load_run("full", {"images.teacher.repository": "Qwen/Qwen-Image"}))
    assert plan.line("captions").seconds is plan.line("images").seconds is None
    assert not plan.is_whole
    text = " ".join(plan.unknown)
    assert "prompts" in text
    assert "images: the work of `draw` is not counted: state plan.rates.draw" in text


def test_a_rewriter_is_said_not_to_be_reckoned() -> None:
    rewriter = {"model": "Qwen/Qwen3-8B", "endpoints": ["http://127.0.0.1:8003/v1"]}
    plan = build_plan(load_run("full", {"captions.rewriter": rewriter}))
    assert "rewriter Qwen/Qwen3-8B is not reckoned" in " ".join(plan.unknown)


def test_a_vision_model_is_part_of_encoding() -> None:
    """A ViT-B on 256 patches at 256 px and 1,024 at 512 px, two operations a weight and patch."""
    with_dino = load_run("full", {"features.alignment_encoder": "facebook/dinov2-base"})
    seconds = [
        build_plan(run).line("features").seconds or 0 for run in (load_run("full"), with_dino)
    ]
    more = 1.6e6 * 2 * 86e6 * (256 + 1024) / (312e12 * 0.3)
    assert seconds[1] - seconds[0] == pytest.approx(more)


def test_a_stage_that_is_there_costs_nothing_again(small: RunConfig) -> None:
    whole = There(Manifest("images", "c"), 600, 600, counted=Counted(600, 540))
    plan = build_plan(small, {"images": whole})
    line = plan.line("images")
    assert (line.seconds, line.bytes_left) == (0, 0)
    assert line.whole_seconds == pytest.approx(60)
    assert (line.rows_in, line.kept) == (600, 540)
    assert plan.whole_seconds - plan.seconds == pytest.approx(60)


def test_of_a_stage_that_is_partly_there_the_rest_is_paid(small: RunConfig) -> None:
    line = build_plan(small, {"images": There(rows=150, of=600)}).line("images")
    assert line.seconds == pytest.approx(45)
    assert line.bytes_left == pytest.approx((line.bytes or 0) * 0.75)


def test_of_a_training_each_phase_has_its_own_rest(measured_tiny: RunConfig) -> None:
    there = There(rows=2330, of=2560, phases=(1, 0.5, 0))
    line = build_plan(measured_tiny, {"student": there}).line("student")
    seconds = [effort.seconds or 0 for effort in line.efforts]
    assert line.seconds == pytest.approx(sum(seconds[2:4]) / 2 + sum(seconds[4:]))


def test_the_rest_takes_what_the_part_that_is_there_took(small: RunConfig) -> None:
    """A quarter took 100 s, though the rates say 15 s: three quarters will take 300 s."""
    plan = build_plan(small, {"images": There(rows=150, of=600, spent=100.0)})
    line = plan.line("images")
    assert (line.seconds, line.whole_seconds, line.reckoned) == pytest.approx((300, 400, 60))
    other = load_run("full", {"images.teacher.repository": "Qwen/Qwen-Image"})
    plan = build_plan(other, {"images": There(rows=1, of=1000, spent=3600.0)})
    assert plan.line("images").seconds == pytest.approx(999 * 3600)
    assert "draw" not in " ".join(plan.unknown)


VALUES = {
    "captions.sources.0.num_captions": st.integers(1, 10**7),
    "images.seeds_per_caption": st.integers(1, 8),
    "student.phases.0.steps": st.integers(1, 10**5),
    "student.phases.0.batch_size": st.integers(1, 10**4),
    "preferences.num_captions": st.integers(1, 10**5),
    "preferences.samples_per_caption": st.integers(1, 9),
    "preferences.sampling.head_steps": st.integers(1, 99),
    "dpo.steps": st.integers(1, 10**4),
    "evaluation.evaluators.0.prompts_per_task": st.integers(1, 500),
    "plan.device.price_per_hour": st.floats(0, 100),
}


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(VALUES)))
def test_more_never_costs_less(data: st.DataObject, value: str) -> None:
    few, many = sorted([data.draw(VALUES[value]), data.draw(VALUES[value])])
    less, more = (build_plan(load_run("tiny", {value: n})) for n in (few, many))
    assert more.seconds >= less.seconds * (1 - 1e-12)
    assert more.money(more.seconds) >= less.money(less.seconds) * (1 - 1e-12)
    assert more.bytes >= less.bytes * (1 - 1e-12)


def test_a_second_device_takes_half_the_time_for_the_same_money() -> None:
    one, two = (build_plan(load_run("full", {"plan.devices": n})) for n in (1, 2))
    assert (one.seconds, two.devices) == (two.seconds, 2)


def test_cautions_of_captions_stand_in_the_plan() -> None:
    plan = build_plan(load_run("full", {"captions.sources.6.enabled": True}))
    (caution,) = plan.cautions
    assert "sharegpt4v (CC-BY-NC-4.0): NON-COMMERCIAL" in caution


def test_what_is_lacking_stands_at_its_stage_and_what_several_lack_once(small: RunConfig) -> None:
    lacking = {"images": ["no GPU", "no weights"], "dpo": ["no GPU"]}
    plan = build_plan(small, lacking=lacking)
    assert plan.missing == ("no GPU",)
    assert plan.line("images").missing == ("no weights",)
    assert plan.line("dpo").missing == ()


def test_a_plan_needs_no_gpu_and_says_what_is_missing() -> None:
    plan = plan_of(load_run("full", {"root": "artifacts/nothing-here"}))
    text = " ".join([*plan.missing, *(each for line in plan.lines for each in line.missing)])
    for word in ("FLUX.1-schnell", "flan-t5-xxl", "stable-diffusion-3.5-large", "8001"):
        assert word in text


def test_a_disk_that_is_too_small_is_named(
    small: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = build_plan(small)
    monkeypatch.setattr("pipeline.plan.free_bytes", lambda root: int(plan.bytes) + 1)
    assert disk_missing(plan, "somewhere") == []
    monkeypatch.setattr("pipeline.plan.free_bytes", lambda root: int(plan.bytes) - 1)
    (sentence,) = disk_missing(plan, "somewhere")
    assert "GB are still to be written" in sentence
    assert sentence.endswith("free at somewhere")


def test_the_papers_days_at_the_same_share_of_another_peak(small: RunConfig) -> None:
    a100 = build_plan(load_run("full")).device
    half = a100.model_copy(update={"peak_tflops": 156.0})
    assert paper_seconds(a100) == 88 * 86_400
    assert paper_seconds(half) == 2 * 88 * 86_400
    assert a100_days(2 * 86_400, half) == 1.0


def test_the_figures_for_a_program_are_those_of_the_plan(small: RunConfig) -> None:
    plan: Plan = build_plan(small)
    told: dict[str, Any] = plan.to_json()
    assert told["totals"]["seconds"] == plan.seconds
    assert told["stages"]["images"]["money"] == pytest.approx(0.06)
    assert list(told["stages"]) == [line.stage for line in plan.lines]
