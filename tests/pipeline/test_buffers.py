"""Memory that is used again, and never while somebody holds it."""

import gc
import pickle
from threading import Thread

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.buffers import Buffers


def test_memory_goes_back_with_its_last_view() -> None:
    memory = Buffers()
    first = memory.empty(800)
    place, view = first.data_ptr(), first.view(torch.float32)[3:].numpy()
    del first
    gc.collect()
    other = memory.empty(800)
    assert other.data_ptr() != place
    del view
    gc.collect()
    assert memory.empty(750).data_ptr() == place


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_no_more_is_held_than_was_out_at_once(sizes: list[int]) -> None:
    memory, out = Buffers(), []
    for size in sizes:
        out = [*out[-2:], memory.empty(size)]
        assert len(out[-1]) == size
        out[-1].fill_(len(out))
    gc.collect()
    assert len(memory._free) + len(out) <= 4


def test_what_threads_hold_is_their_own() -> None:
    memory, wrong = Buffers(), []

    def fill(value: int) -> None:
        for size in range(1, 200):
            mine = memory.empty(1000 + size)
            mine.fill_(value)
            wrong.extend([value] * bool((mine != value).any()))

    threads = [Thread(target=fill, args=(value,)) for value in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_copy_for_another_process_has_memory_of_its_own() -> None:
    memory = Buffers()
    memory.empty(10)
    assert pickle.loads(pickle.dumps(memory))._free == []
