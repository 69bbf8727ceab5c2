"""The order of rows: one for any number of processes, resumed anywhere, with buckets or without."""

import multiprocessing
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import FeatureBatches, TableRows, TextStates
from pipeline.draws import row_generators
from pipeline.orders import Group, Order
from pipeline.prefetch import following
from pipeline.training import Part

BATCH = 8


def order_of(num_rows: int, buckets: int, batch_size: int = BATCH, seed: int = 3) -> Order:
    lengths = np.random.default_rng(num_rows).integers(1, 60, num_rows)
    return Order(num_rows, batch_size, seed, lengths, buckets)


@given(st.integers(1, 70), st.integers(1, 20), st.integers(0, 4))
def test_buckets_show_the_same_rows_in_an_epoch(num_rows: int, size: int, buckets: int) -> None:
    plain, bucketed = (order_of(num_rows, n, size) for n in (0, buckets))
    for epoch in range(2):
        steps = range(epoch * plain.per_epoch, (epoch + 1) * plain.per_epoch)
        shown = [np.sort(np.concatenate([o.rows(s) for s in steps])) for o in (plain, bucketed)]
        assert np.array_equal(*shown)


def test_buckets_save_padding_and_do_not_rise_and_fall() -> None:
    plain, bucketed = order_of(4000, 0, 50), order_of(4000, 10, 50)
    assert bucketed.lengths is not None

    def longest(order: Order) -> np.ndarray:
        assert order.lengths is not None
        return np.array([order.lengths[order.rows(step)].max() for step in range(80)])

    mean = bucketed.lengths.mean()
    assert longest(plain).mean() > 1.8 * mean
    assert longest(bucketed).mean() < 1.2 * mean
    assert abs(np.corrcoef(np.arange(80), longest(bucketed))[0, 1]) < 0.4


@pytest.mark.parametrize("buckets", [0, 4])
def test_a_step_costs_what_its_batch_does_not_what_the_table_does(buckets: int) -> None:
    order = order_of(100_000, buckets)
    order.rows(0)  # the epoch's order is made once
    tracemalloc.start()
    order.rows(1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000


def grouped(sizes: list[int], shares: list[int], batch: int, buckets: int = 0) -> Order:
    ends = np.cumsum([0, *sizes])
    groups = tuple(
        Group(np.arange(first, last), share / sum(shares))
        for first, last, share in zip(ends, ends[1:], shares, strict=False)
    )
    lengths = np.random.default_rng(1).integers(1, 60, ends[-1])
    return Order(int(ends[-1]), batch, 3, lengths, buckets, groups)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from([0, 3]),
)
def test_groups_have_their_shares_and_each_row_of_one_comes_as_often(
    groups: list[tuple[int, int]], buckets: int
) -> None:
    sizes, shares = (list(each) for each in zip(*groups, strict=True))
    order = grouped(sizes, shares, 1, buckets)
    shown = np.concatenate([order.rows(step) for step in range(4 * order.per_epoch)])
    times, first = np.bincount(shown, minlength=order.num_rows), 0
    for size, share in groups:
        own = times[first : first + size]
        # An epoch rounds both ends of a group's stretch.
        assert abs(own.sum() - 4 * order.num_rows * share / sum(shares)) <= 4
        assert own.max() - own.min() <= 1
        first += size


def test_grouped_epochs_differ_and_a_step_is_always_the_same() -> None:
    order, again = (grouped([40, 5], [1, 1], 9) for _ in range(2))
    assert sorted(np.concatenate([order.rows(s) for s in range(5)])[:45]) != list(range(45))
    assert order.rows(7).tolist() == again.rows(7).tolist() != order.rows(2).tolist()


def rank_rows(order: Order, ranks: int, accumulation: int, step: int) -> list[int]:
    """What the ranks take of a step, each of them walking as a training does."""
    rows: list[int] = []
    for rank in range(ranks):
        place = step, Part(rank * accumulation, ranks * accumulation)
        while place is not None and place[0] == step:
            rows += order.rows(step)[list(place[1].of(order.batch_size))].tolist()
            place = following(accumulation, rank, step + 2, place)
    return rows


@given(
    num_rows=st.integers(1, 90),
    buckets=st.sampled_from([0, 3]),
    stretches=st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2])),
        min_size=1,
        max_size=5,
    ),
)
def test_any_number_of_ranks_goes_on_where_another_stopped(
    num_rows: int, buckets: int, stretches: list[tuple[int, int, int]]
) -> None:
    """Steps on 1, 2 or 4 ranks in turn, each stretch a resume at some step."""
    single, step = order_of(num_rows, buckets), 0
    for steps, ranks, accumulation in stretches:
        resumed = order_of(num_rows, buckets)  # nothing is known but the step
        for _ in range(steps):
            assert rank_rows(resumed, ranks, accumulation, step) == single.rows(step).tolist()
            step += 1


def rank_of_a_run(root: Path, snapshots: dict, rank: int, ranks: int, out: Path) -> None:
    """In a spawned process: the latents and states of this rank's part of some steps."""
    batches = opened(root, snapshots)
    part = Part(rank, ranks).of(BATCH)
    taken = [batches.take(step, part, row_generators(0, step, part)) for step in STEPS]
    np.savez(out, *[x.numpy() for batch in taken for x in (batch.latents, batch.states)])


STEPS = (0, 1, 5, 11)


def opened(root: Path, snapshots: dict) -> FeatureBatches:
    source = TableRows.open(root, snapshots["features_64"], ["caption_id", "moments"], 0)
    text = TableRows.open(root, snapshots["text"], ["caption_id", "states", "length"], 0)
    assert {*source.mapped, *text.mapped} == {"moments", "states"}
    values = {"cells": 8, "scale": 1.0, "shift": 0.0, "batch_size": BATCH, "seed": 1}
    return FeatureBatches.load(source, TextStates(text), **values, buckets=2)  # type: ignore[arg-type]


@pytest.mark.slow  # four processes start, each of which imports torch
def test_ranks_in_spawned_processes_read_what_one_reads(debug_run, walk, tmp_path) -> None:
    config = debug_run()
    snapshots, context = walk(config)["features"].snapshots, multiprocessing.get_context("spawn")
    given = [(Path(config.root), snapshots, n, 4, tmp_path / f"{n}.npz") for n in range(4)]
    ranks = [context.Process(target=rank_of_a_run, args=each) for each in given]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    rank_of_a_run(Path(config.root), snapshots, 0, 1, tmp_path / "one.npz")
    one = np.load(tmp_path / "one.npz")
    four = [np.load(tmp_path / f"{n}.npz") for n in range(4)]
    assert len(one.files) == 2 * len(STEPS)
    for name in one.files:
        assert np.array_equal(one[name], np.concatenate([each[name] for each in four]))
