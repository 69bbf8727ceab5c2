"""Memory that is used again, and never while somebody holds it."""

import pickle
from threading import Thread

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.blocks import Blocks


def test_memory_goes_back_with_the_last_that_shares_it() -> None:
    memory = Blocks()
    first = memory.empty(800)
    place, kept = first.ctypes.data, pa.py_buffer(first[8:].view(np.float32))
    del first
    other = memory.empty(800)
    assert other.ctypes.data != place
    del kept
    assert memory.empty(750).ctypes.data == place


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_no_more_is_held_than_was_out_at_once(sizes: list[int]) -> None:
    memory, out = Blocks(), []
    for size in sizes:
        out = [*out[-2:], memory.empty(size)]
        assert len(out[-1]) == size
        out[-1].fill(len(out))
    assert len(memory._free) + len(out) <= 4


def test_what_nobody_holds_can_be_given_back() -> None:
    memory = Blocks()
    held, _ = memory.empty(100), memory.empty(100)
    del _
    memory.clear()
    assert memory._free == []
    del held
    assert len(memory._free) == 1


def test_what_threads_hold_is_their_own() -> None:
    memory, wrong = Blocks(), []

    def fill(value: int) -> None:
        for size in range(1, 200):
            mine = memory.empty(1000 + size)
            mine.fill(value)
            wrong.extend([value] * bool((mine != value).any()))

    threads = [Thread(target=fill, args=(value,)) for value in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_copy_for_another_process_has_memory_of_its_own() -> None:
    memory = Blocks()
    memory.empty(10)
    assert pickle.loads(pickle.dumps(memory))._free == []
