"""Distances against closed forms, scipy's matrix root, and torch-fidelity where it is there."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from pipeline.fidelity.distances import Statistics, cmmd, frechet, mean_kernel, statistics


def gaussian(seed: int, width: int = 6) -> Statistics:
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(width, width))
    return Statistics(rng.normal(size=width), shape @ shape.T, 100)


def test_two_gaussians_of_one_axis_are_apart_as_the_formula_says():
    one = Statistics(np.array([1.0, 0.0]), np.diag([4.0, 9.0]), 10)
    other = Statistics(np.array([-2.0, 4.0]), np.diag([1.0, 25.0]), 10)
    assert frechet(one, other) == pytest.approx(9 + 16 + (2 - 1) ** 2 + (3 - 5) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_covariances_that_do_not_commute_need_the_root_of_their_product(seed):
    one, other = gaussian(seed), gaussian(seed + 10)
    root = np.trace(sqrtm(one.covariance @ other.covariance).real)
    expected = np.sum((one.mean - other.mean) ** 2) - 2 * root
    expected += np.trace(one.covariance) + np.trace(other.covariance)
    assert frechet(one, other) == pytest.approx(expected)
    assert frechet(one, other) == pytest.approx(frechet(other, one))


@given(st.integers(0, 1000))
def test_a_set_is_not_apart_from_itself_nor_by_a_turn_of_both(seed):
    one, other = gaussian(seed), gaussian(seed + 1)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    turned = [
        Statistics(turn @ s.mean, turn @ s.covariance @ turn.T, s.number) for s in (one, other)
    ]
    assert frechet(*turned) == pytest.approx(frechet(one, other), rel=1e-6)


def test_fewer_pictures_than_features_have_a_distance_too():
    rng = np.random.default_rng(0)
    one, other = (statistics(rng.normal(size=(20, 64))) for _ in range(2))
    assert np.isfinite(frechet(one, other))
    assert frechet(one, one) == pytest.approx(0, abs=1e-3)  # roots of rounding


def test_statistics_are_numpys_and_one_picture_has_none():
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    known = statistics(rows)
    assert known.covariance == pytest.approx(np.cov(rows.astype(float), rowvar=False))
    with pytest.raises(ValueError, match="1 pictures have no covariance"):
        statistics(rows[:1])
    with pytest.raises(ValueError, match="features of 4 and 2 numbers: two extractors"):
        frechet(known, statistics(rows[:, :2]))


def test_cmmd_of_two_points_is_worked_out_by_hand():
    one, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert cmmd(one, other) == pytest.approx(1000 * (2 - 2 * np.exp(-2 / 200)))
    assert cmmd(one, one) == pytest.approx(0)
    two = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert mean_kernel(two, two) == pytest.approx((1 + np.exp(-0.01)) / 2)
    with pytest.raises(ValueError, match="two extractors"):
        cmmd(one, np.ones((2, 3)))


def test_cmmd_takes_sets_of_other_sizes_and_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        v / np.linalg.norm(v, axis=1, keepdims=True)
        for v in (rng.normal(size=(n, 8)) for n in (30, 45))
    ]
    whole = cmmd(*rows)
    monkeypatch.setattr("pipeline.fidelity.distances.AT_ONCE", 7)
    assert cmmd(*rows) == pytest.approx(whole)


@pytest.mark.skipif(not find_spec("torch_fidelity"), reason="the extra `fidelity`")
def test_both_are_torch_fidelitys():
    from pipeline.clip_models import declare_operators

    declare_operators()
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_kid import kernel_rbf, mmd2

    one, other = gaussian(1), gaussian(2)
    theirs = [{"mu": s.mean, "sigma": s.covariance} for s in (one, other)]
    fid = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet(one, other) == pytest.approx(fid)
    x, y = np.random.default_rng(0).normal(size=(2, 40, 8))
    kernels = [kernel_rbf(*pair, kid_kernel_rbf_sigma=10) for pair in ((x, x), (x, y), (y, y))]
    assert cmmd(x, y) == pytest.approx(1000 * mmd2(*kernels, mmd_est="biased"))
