"""Batches that fall until they fit, for lists and for tensors."""

import pytest
import torch

from pipeline.halving import BatchSize


def crowded(most: int):
    def work(batch):
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(batch)

    return work


def test_a_batch_is_halved_until_it_fits_and_stays_small() -> None:
    size = BatchSize(8, "batch_size", "it", "buy more")
    assert list(size.through(range(5), crowded(2))) == [[0, 1], [2, 3], [4]]
    assert size.value == 2
    assert list(size.through(torch.arange(3), lambda batch: batch.tolist())) == [[0, 1], [2]]


def test_a_short_batch_does_not_raise_the_size() -> None:
    size = BatchSize(8, "batch_size", "it", "buy more")
    assert list(size.through(range(3), crowded(8))) == [[0, 1, 2]]
    assert size.value == 8


def test_one_item_that_does_not_fit_is_a_sentence() -> None:
    size = BatchSize(4, "batch_size", "stage: the model", "buy more")
    with pytest.raises(ValueError, match=r"stage: the model does not fit .* batch_size 1 .*buy"):
        list(size.through(range(4), crowded(0)))
