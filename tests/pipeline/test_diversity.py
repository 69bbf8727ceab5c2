"""Measures by hand, and a choice that covers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import screening
from pipeline.captions import harvest
from pipeline.config import CaptionsConfig
from pipeline.diversity import balanced, coverage, select, vendi_score


def points(*groups: tuple[int, int], dimensions: int = 8) -> np.ndarray:
    """So many rows near so many axes."""
    noise = np.random.default_rng(0)
    rows = [
        np.eye(dimensions)[axis] + 0.01 * noise.normal(size=(n, dimensions)) for axis, n in groups
    ]
    vectors = np.concatenate(rows)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("number", [1, 3, 8])
def test_the_vendi_score_counts_different_captions(number: int) -> None:
    different = np.eye(8, dtype=np.float32)[np.arange(24) % number]
    assert vendi_score(different) == pytest.approx(number, rel=1e-6)


def test_the_vendi_score_is_that_of_the_kernel() -> None:
    vectors = points((0, 5), (1, 2), (2, 1))
    values = np.linalg.eigvalsh(vectors.astype(float) @ vectors.T / 8)
    values = values[values > 1e-12]
    assert vendi_score(vectors) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-4)
    assert vendi_score(vectors[:0]) == 0


def test_coverage_is_the_share_of_clusters_and_how_evenly() -> None:
    clusters = np.array([0, 0, 0, 1, 2, 3])
    assert coverage(clusters, np.ones(6, bool)) == (1, pytest.approx(0.866, abs=1e-3))
    assert coverage(clusters, np.array([1, 0, 0, 1, 0, 0], bool)) == (0.5, pytest.approx(0.5))
    assert coverage(clusters, np.zeros(6, bool)) == (0, 0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 60))
def test_clusters_are_filled_to_one_height(clusters: list[int], number: int) -> None:
    array = np.array(clusters)
    order = np.random.default_rng(1).permutation(len(array)).astype(np.uint64)
    chosen = balanced(array, order, number)
    assert len(chosen) == len(set(chosen.tolist())) == min(number, len(array))
    taken, there = (np.bincount(each, minlength=6) for each in (array[chosen], array))
    height = taken.max()
    assert all(t >= min(n, height - 1) for t, n in zip(taken, there, strict=True))


def test_a_choice_reaches_rare_clusters_and_keeps_the_mix() -> None:
    pytest.importorskip("sklearn")
    vectors = points((0, 300), (1, 30), (2, 6), (3, 6))
    long = np.arange(len(vectors)) % 2 == 0
    ids = [f"{row:016x}" for row in range(len(vectors))]
    values = {"number": 40, "clusters": 4, "seed": 0}
    chosen = select(vectors, long, ids, short_share=0.25, **values)
    axes = vectors[chosen].argmax(1)
    assert len(chosen) == 40
    assert (~long[chosen]).sum() == 10
    assert (np.bincount(axes, minlength=4)[:4] >= 5).all()
    assert np.array_equal(chosen, select(vectors, long, ids, short_share=0.25, **values))


def test_short_ones_fill_the_clusters_that_long_ones_leave_low() -> None:
    pytest.importorskip("sklearn")
    vectors = points((0, 100), (1, 100), (2, 100), (3, 100))
    long = vectors.argmax(1) < 2
    long[::10] = ~long[::10]  # each cluster has some of the other kind
    ids = [f"{row:016x}" for row in range(len(vectors))]
    chosen = select(vectors, long, ids, number=160, short_share=0.5, clusters=4, seed=0)
    assert (~long[chosen]).sum() == 80
    counts = np.bincount(vectors[chosen].argmax(1), minlength=8)[:4]
    assert counts.max() - counts.min() <= 1


@settings(max_examples=20)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 60))
def test_the_mix_is_exact_wherever_both_kinds_are_there(
    number: int, share: float, shorts: int
) -> None:
    pytest.importorskip("sklearn")
    vectors, ids = points((0, 30), (1, 30)), [f"{row:016x}" for row in range(60)]
    long = np.arange(60) >= shorts
    chosen = select(vectors, long, ids, number=number, short_share=share, clusters=2, seed=0)
    assert len(set(chosen.tolist())) == len(chosen) == number
    wanted = round(number * share)
    there = range(max(0, number - (60 - shorts)), min(shorts, number) + 1)
    assert (~long[chosen]).sum() == min(max(wanted, there.start), there.stop - 1)


def test_where_one_kind_lacks_the_other_fills_up() -> None:
    pytest.importorskip("sklearn")
    vectors, ids = points((0, 20), (1, 20)), [f"{row:016x}" for row in range(40)]
    long = np.arange(40) < 5
    chosen = select(vectors, long, ids, number=30, short_share=0.2, clusters=2, seed=0)
    assert len(chosen) == 30
    assert long[chosen].sum() == 5


def test_what_a_choice_leaves_out_says_so(tmp_path) -> None:
    pytest.importorskip("sklearn")
    source = {"kind": "shapes", "num_captions": 300}
    selection = {"num_captions": 40, "clusters": 8, "short_share": None}
    config = CaptionsConfig.model_validate({"sources": [source], "selection": selection})
    result = harvest(tmp_path, config)
    reasons = result.reason_of(slice(0, 300)).to_pylist()
    assert reasons.count("") == 40
    assert set(reasons) == {"", screening.DUPLICATE, screening.NOT_SELECTED}
    assert harvest(tmp_path, config).reason_of(slice(0, 300)).to_pylist() == reasons
