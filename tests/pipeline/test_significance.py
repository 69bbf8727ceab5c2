"""Intervals and tests by hand, against scipy, and on random checkpoints that are alike or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.significance import (
    Interval,
    bootstrap,
    compare,
    effective_number,
    mcnemar,
    mean_interval,
    share_interval,
    sign_flip,
    wilson,
)


@pytest.mark.parametrize(("right", "number"), [(0, 10), (3, 10), (10, 10), (1, 400), (200, 400)])
def test_wilsons_interval_is_scipys(right, number):
    ours = wilson(right / number, number)
    theirs = binomtest(right, number).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_a_share_lies_in_its_interval(share, number):
    interval = wilson(share, number)
    assert 0 <= interval.low <= share <= interval.high <= 1


def test_pictures_of_one_prompt_that_agree_count_as_one():
    prompts = np.repeat(np.arange(20), 4)
    together = np.repeat(np.arange(20) < 8, 4)
    assert effective_number(together, prompts) == 20
    assert share_interval(together, prompts) == wilson(0.4, 20)
    spread = np.tile([True, False, False, False], 20)
    assert effective_number(spread, prompts) == 80
    assert effective_number(np.ones(80, bool), prompts) == 20  # nothing is known of how alike


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    prompts, held, naive = np.repeat(np.arange(60), 4), 0, 0
    for _ in range(400):
        chances = rng.beta(1, 1, 60)  # easy prompts and hard ones
        right = (rng.random((60, 4)) < chances[:, None]).ravel()
        ours, plain = share_interval(right, prompts), wilson(right.mean(), 240)
        held += ours.low <= 0.5 <= ours.high
        naive += plain.low <= 0.5 <= plain.high
    assert 0.92 < held / 400 < 0.98
    assert naive / 400 < 0.9  # pictures are not independent


def test_the_mean_of_tasks_is_surer_than_a_task_and_never_certain():
    one = Interval(0.5, 0.4, 0.6)
    mean = mean_interval([one] * 4)
    assert (mean.share, mean.low, mean.high) == pytest.approx((0.5, 0.45, 0.55))
    nought = mean_interval([wilson(0.0, 60)] * 6)
    assert (nought.share, nought.low) == (0, 0)
    assert nought.high > 0.01


def test_an_interval_reads_as_a_person_writes_it():
    assert str(Interval(0.5574, 0.52, 0.5949)) == "0.557 (0.520–0.595)"


# --- two checkpoints ----------------------------------------------------------------------------

PROMPTS = np.repeat(np.arange(50), 4)


def two(shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    chances = rng.beta(1, 1, 50)
    before = rng.random((50, 4)) < chances[:, None]
    after = rng.random((50, 4)) < np.clip(chances + shift, 0, 1)[:, None]
    return before.ravel(), after.ravel()


def test_a_difference_is_counted_by_prompts_and_by_pictures():
    before, after = two(0.2)
    (row,) = compare(("a", "b"), {"t": before}, {"t": after}, {"t": PROMPTS})
    assert row.difference == pytest.approx(after.mean() - before.mean())
    assert (row.gained, row.lost) == (int((after & ~before).sum()), int((before & ~after).sum()))
    assert row.low < row.difference < row.high
    assert row.p < 0.01
    assert (row.prompts, row.pictures) == (50, 200)


def test_the_mean_of_tasks_weighs_each_task_the_same():
    many, few = two(0.2), (np.zeros(8, bool), np.ones(8, bool))
    before, after = ({"many": many[n], "few": few[n]} for n in range(2))
    rows = compare(("a", "b"), before, after, {"many": PROMPTS, "few": np.arange(8)})
    assert [row.task for row in rows] == ["many", "few", "mean"]
    assert rows[2].difference == pytest.approx((rows[0].difference + 1) / 2)


def test_the_same_pictures_are_no_different_and_numbers_repeat():
    before, after = two(0.1)
    (same,) = compare(("a", "a"), {"t": before}, {"t": before}, {"t": PROMPTS})
    assert (same.difference, same.low, same.high, same.p, same.mcnemar_p) == (0, 0, 0, 1, 1)
    first, second = (
        compare(("a", "b"), {"t": before}, {"t": after}, {"t": PROMPTS}) for _ in range(2)
    )
    assert first == second


def test_few_checkpoints_that_are_alike_are_told_apart():
    values = []
    for seed in range(200):
        before, after = two(0.0, seed)
        (row,) = compare(("a", "b"), {"t": before}, {"t": after}, {"t": PROMPTS}, resamples=500)
        values.append(row.p)
    assert np.mean(np.array(values) < 0.05) < 0.09


def test_signs_are_flipped_as_an_exact_test_would():
    values = np.array([1.0, 1, 1, 1, 0, 0])  # 16 ways, of which two are as far
    assert sign_flip([values]) == pytest.approx(2 / 16, abs=0.01)
    assert sign_flip([np.zeros(6)]) == 1


def test_a_bootstrap_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(0.3, 1, 400)
    low, high = bootstrap([values])
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_mcnemar_is_the_binomial_of_what_changed():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == 1


def test_other_numbers_of_pictures_are_named():
    with pytest.raises(ValueError, match="t: 200 pictures of a and 199 of b; a paired test needs"):
        compare(("a", "b"), {"t": two(0)[0]}, {"t": two(0)[1][:-1]}, {"t": PROMPTS})
