"""Batches made beside the step: the same ones, in any case, and threads that end."""

import threading
import time
from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import LoopConfig, OptimizerConfig
from pipeline.prefetch import Prefetch, following, prefetched
from pipeline.pretraining import train_student
from pipeline.pretraining_step import PretrainingStep
from pipeline.student import folder
from pipeline.training import Part, Schedule, fit
from tests.pipeline.two_processes import CONFIG, batches, network


def counting(last: int) -> Callable[[int], int | None]:
    return lambda key: key + 1 if key < last else None


def named_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("prefetch")]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 12), max_size=20), st.integers(0, 3))
def test_any_order_of_keys_gives_their_values(keys: list[int], threads: int) -> None:
    with Prefetch(lambda key: key * key, counting(12), threads=threads) as ready:
        assert [ready(key) for key in keys] == [key * key for key in keys]
    assert ready(3) == 9  # closed: made when it is asked for
    assert named_threads() == []


def test_what_follows_is_made_before_it_is_asked_for_and_no_more() -> None:
    made, expected = [], []

    def make(key: int) -> int:
        made.append(key)
        return key

    with Prefetch(make, counting(9), threads=1, expect=expected.append) as ready:
        ready(0)
        wait_until(lambda: len(made) == 3)
        time.sleep(0.05)
        assert sorted(made) == [0, 1, 2]
        assert sorted(expected) == [0, 1, 2, 3, 4]
        ready(1)
        wait_until(lambda: sorted(made) == [0, 1, 2, 3])


def test_who_waits_makes_what_no_thread_has_begun() -> None:
    makers, second = dict[int, str](), threading.Event()

    def make(key: int) -> int:
        makers[key] = threading.current_thread().name
        if key == 0:
            assert second.wait(20)
        if key == 1:
            second.set()
        return key

    with Prefetch(make, counting(9), threads=1) as ready:
        assert [ready(key) for key in range(3)] == [0, 1, 2]
    assert threading.current_thread().name in makers.values()


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_each_key_is_told_of_once_before_it_is_made(threads: int) -> None:
    expected: list[int] = []

    def make(key: int) -> int:
        assert key in expected
        return key

    with Prefetch(make, counting(9), threads=threads, expect=expected.append) as ready:
        assert [ready(key) for key in range(10)] == list(range(10))
    assert sorted(expected) == list(range(10))


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_an_error_is_raised_at_its_own_step() -> None:
    def make(key: int) -> int:
        if key == 2:
            raise OSError("row 7 of states does not read")
        return key

    with Prefetch(make, counting(9), threads=2) as ready:
        assert [ready(0), ready(1)] == [0, 1]
        with pytest.raises(OSError, match="row 7"):
            ready(2)
    assert named_threads() == []


def test_a_block_that_raises_ends_the_threads() -> None:
    def interrupted() -> None:
        with Prefetch(lambda key: time.sleep(0.01), counting(99), threads=2) as ready:
            ready(0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert named_threads() == []


@pytest.mark.parametrize(("accumulation", "process_index"), [(1, 0), (2, 1), (3, 1)])
def test_a_process_walks_its_own_parts_to_the_last_step(accumulation, process_index) -> None:
    count, first = 2 * accumulation, process_index * accumulation
    place, seen = (0, Part(first, count)), []
    while place is not None:
        seen.append((place[0], place[1].index))
        place = following(accumulation, process_index, 3, place)
    assert seen == [(step, first + n) for step in range(3) for n in range(accumulation)]


def trained(tmp_path, threads: int) -> dict[str, torch.Tensor]:
    step = PretrainingStep(CONFIG, batches(), 3)
    loop = LoopConfig(prefetch_threads=threads, accumulation=2, tracker="none")
    place, optimizer = Accelerator(cpu=True), OptimizerConfig(learning_rate=1e-2)
    with prefetched(step.prepare, step.expect, loop, 3, place) as step.ready:
        schedule, out = Schedule(3, 8, seed=1), tmp_path / str(threads)
        return fit(network(), step, optimizer, loop, schedule, out, accelerator=place)


def test_threads_change_no_bit_of_the_weights(tmp_path) -> None:
    without, *others = (trained(tmp_path, threads) for threads in (0, 1, 2))
    for other in others:
        assert all(torch.equal(without[name], other[name]) for name in without)


def test_a_table_that_does_not_read_stops_the_training_at_its_step(
    debug_run, walk, monkeypatch
) -> None:
    config = debug_run({"evaluation": None, "student.tracker": "none", "student.log_every": 1})
    upstream, prepare = walk(config), PretrainingStep.prepare

    def torn(self: PretrainingStep, place: tuple[int, Part]) -> object:
        if place[0] == 1:
            raise OSError("the disk is gone")
        return prepare(self, place)

    monkeypatch.setattr(PretrainingStep, "prepare", torn)
    with pytest.raises(OSError, match="the disk is gone"):
        train_student(config, upstream)
    log = folder(config, upstream).path / "phase-0-64" / "log.jsonl"
    assert len(log.read_text().splitlines()) == 1  # the step before was trained and told
    assert named_threads() == []
