import math
import random
import xml.etree.ElementTree as ElementTree

import pytest

from pipeline.plots import (
    MAX_PLOT_BYTES,
    Series,
    _smoothed,
    _thinned,
    bars,
    checkpoint_bars,
    curve_plot,
    grouped_bars,
    learning_curve,
    loss_plot,
    preference_plot,
    reward_plot,
    score_bars,
    stage_bars,
)

SCORES = {"single_object": 0.9, "counting": 0.5, "mean": 0.7}


def noisy(num: int) -> tuple[list[int], list[float]]:
    rng = random.Random(0)
    return list(range(num)), [math.exp(-n / 500) + rng.gauss(0.3, 0.1) for n in range(num)]


def texts(svg: bytes) -> str:
    return " ".join("".join(node.itertext()) for node in ElementTree.fromstring(svg).iter())


@pytest.mark.parametrize("num", [0, 1, 2, 50, 20_000])
def test_a_plot_of_any_length_is_small_and_well_formed(num: int) -> None:
    x, y = noisy(num)
    for svg in (
        loss_plot(x, y, marks={num / 2: "128 px"}),
        curve_plot([Series("one", x, y), Series("two", x, y)], "x", "y", level=0.5),
        preference_plot(x, y, y, y),
        reward_plot(x, y, y),
        learning_curve(x[:30], {"counting": y[:30], "position": y[:30]}),
    ):
        assert len(svg) < MAX_PLOT_BYTES
        assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_the_same_numbers_give_the_same_bytes() -> None:
    x, y = noisy(300)
    assert loss_plot(x, y) == loss_plot(x, y)
    assert score_bars(SCORES, SCORES) == score_bars(SCORES, SCORES)


def test_steps_that_are_no_numbers_are_left_out() -> None:
    svg = loss_plot([0, 1, 2, 3], [1.0, math.nan, math.inf, 0.5])
    assert b"nan" not in svg.lower().replace(b"dominan", b"")
    assert "0.5" in texts(svg)


def test_a_log_axis_may_begin_at_step_zero() -> None:
    assert ElementTree.fromstring(loss_plot(*noisy(500), log_x=True)) is not None


def test_bars_show_the_difference_of_each_task() -> None:
    after = {"single_object": 0.8, "counting": 0.75, "mean": 0.77}
    words = texts(score_bars(SCORES, after, labels=("student", "aligned")))
    for expected in ("-0.10", "+0.25", "+0.07", "student", "aligned", "counting"):
        assert expected in words.replace("−", "-")


def test_numbers_that_a_person_reads_keep_their_digits() -> None:
    assert "0.0123" in texts(loss_plot([0, 1], [0.02, 0.0123]))


def test_the_learning_curve_names_its_lines_and_the_mean() -> None:
    words = texts(learning_curve([0, 10], {"counting": [0, 0.2], "colour_attribution": [0, 0.6]}))
    assert "mean 0.40" in words
    assert "colour attribution" in words


def test_smoothing_keeps_a_constant_and_thinning_the_last_point() -> None:
    assert _smoothed([2.0] * 100) == pytest.approx([2.0] * 100)
    x, y = _thinned(list(range(1001)), list(range(1001)))
    assert (x[0], x[-1], y[-1]) == (0, 1000, 1000)
    assert len(x) <= 401


def test_bars_of_many_names_stay_small_and_keep_their_groups():
    names = [str(number) for number in range(200)]
    svg = bars(names, [float(number) for number in range(200)], "words", "captions")
    assert len(svg) < MAX_PLOT_BYTES
    assert b">words<" in svg
    groups = {"colours": {"red": 3.0, "blue": 1.0}, "counts": {"two": 2.0}, "places": {}}
    svg = grouped_bars(groups, "captions")
    assert all(f">{word}<".encode() in svg for word in ("red", "blue", "two", "colours"))
    assert svg == grouped_bars(groups, "captions")


def test_any_number_of_checkpoints_stands_side_by_side_with_their_intervals() -> None:
    shares = {"single_object": (0.5, 0.4, 0.6), "mean": (0.2, 0.1, 0.9)}
    for num in (1, 3, 7):
        names = [f"round {number}" for number in range(num)]
        svg = checkpoint_bars(dict.fromkeys(names, shares))
        assert len(svg) < MAX_PLOT_BYTES
        told = texts(svg)
        assert all(name in told for name in names)
        assert "single" in told
        assert svg == checkpoint_bars(dict.fromkeys(names, shares))


def test_a_task_that_a_checkpoint_was_not_asked_is_left_out() -> None:
    shares = {"counting": (0.5, 0.4, 0.6)}
    svg = checkpoint_bars({"student": {}, "aligned": shares})
    assert {"student", "aligned", "counting"} <= set(texts(svg).split())


@pytest.mark.parametrize("stacked", [True, False])
def test_bars_of_stages_carry_their_notes_and_a_legend_where_there_are_two(stacked: bool) -> None:
    names, notes = ["images", "student"], ["3 USD", "not known"]
    groups = {"planned": [1.0, 0.0], "spent": [0.0, 2.0]}
    svg = stage_bars(names, groups, notes, "hours", stacked=stacked)
    assert all(word in texts(svg) for word in (*names, *notes, *groups, "hours"))
    assert len(svg) < MAX_PLOT_BYTES
    assert svg == stage_bars(names, groups, notes, "hours", stacked=stacked)
    assert "planned" not in texts(stage_bars(names, {"planned": [0.0, 0.0]}, notes, "hours"))
