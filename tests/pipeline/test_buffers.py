"""Tensors over memory that is used again."""

import pickle

import torch

from pipeline.buffers import Buffers


def test_memory_goes_back_with_its_last_view() -> None:
    memory = Buffers()
    first = memory.empty(800)
    place, view = first.data_ptr(), first.view(torch.float32)[3:].numpy()
    del first
    other = memory.empty(800)
    assert other.data_ptr() != place
    del view
    assert memory.empty(750).data_ptr() == place


def test_a_copy_for_another_process_is_pinned_or_not_as_this_one() -> None:
    for pinned in (False, True):
        assert pickle.loads(pickle.dumps(Buffers(pinned))).pinned is pinned
