"""The order in which rows are shown: a pure function of the seed and the step.

In:    how many rows there are, the batch's size, a seed; for buckets the text length of each row.
Out:   the rows of a global step. A process takes its part of them, so that their number changes
       nothing, and a resumed run goes on by its step alone.
Rerun: the same values give the same order.

Every epoch is a new permutation, its remainder dropped. With `buckets` of n, each n neighbouring
batches share their rows out by text length, so that less is padded; an epoch shows the same rows as
without, and its batches come in a new order, so that lengths do not rise and fall.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    num_rows: int
    batch_size: int
    seed: int
    lengths: Rows | None = None  # (num_rows,) of their texts
    buckets: int = 0  # batches that are sorted together; 0 or 1: none

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; a set smaller than a batch is one step."""
        return max(1, self.num_rows // self.batch_size)

    def rows(self, step: int) -> Rows:
        """Rows (batch_size,) of a global step."""
        if self.buckets < 2 or self.lengths is None:
            return batch_rows(self.num_rows, self.batch_size, self.seed, step)
        epoch, place = divmod(step, self.per_epoch)
        order = bucketed_order(self, epoch)
        return np.resize(order[place * self.batch_size :], self.batch_size)


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> Rows:
    """Rows of one global step: every epoch a new permutation, its remainder dropped.

    A set smaller than a batch is repeated within it.
    """
    per_epoch = max(1, num_rows // batch_size)
    epoch, place = divmod(step, per_epoch)
    return np.resize(epoch_order(num_rows, seed, epoch)[place * batch_size :], batch_size)


# Two, since an epoch's last batches are made while the next one's first are made ready.
@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> Rows:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)


@lru_cache(maxsize=2)
def bucketed_order(order: Order, epoch: int) -> Rows:
    """An epoch's rows, neighbouring batches sorted by length and then shuffled as batches."""
    assert order.lengths is not None
    size, count = order.batch_size, order.per_epoch
    rows = epoch_order(order.num_rows, order.seed, epoch)[: count * size]
    together = order.buckets * size
    windows = [rows[first : first + together] for first in range(0, len(rows), together)]
    ordered = [window[np.argsort(order.lengths[window], kind="stable")] for window in windows]
    if len(rows) < size:
        return rows
    batches = np.concatenate(ordered).reshape(count, size)
    random = np.random.Generator(np.random.Philox(key=[order.seed, 2**32 + epoch]))
    shuffled: Rows = batches[random.permutation(count)].reshape(-1)
    return shuffled
