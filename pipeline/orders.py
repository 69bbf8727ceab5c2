"""The order in which rows are shown: a pure function of the seed and the step.

In:    how many rows there are, the batch's size, a seed; for buckets the text length of each row.
Out:   the rows of a global step. A process takes its part of them, so that their number changes
       nothing, and a resumed run goes on by its step alone.
       Groups of rows with a share each, where what is shown is not what there is.
Rerun: the same values give the same order.

Every epoch is a new permutation, its remainder dropped. With `buckets` of n, each n neighbouring
batches share their rows out by text length, so that less is padded; an epoch shows the same rows as
without, and its batches come in a new order, so that lengths do not rise and fall.

With groups, every epoch shows each group's share of its rows, to one. A group goes through all its
rows before any comes again, over the ends of epochs.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Group(NamedTuple):
    rows: Rows  # (any,)
    share: float  # of what an epoch shows; those of all groups are 1 together


@dataclass(frozen=True, eq=False)
class Order:
    num_rows: int
    batch_size: int
    seed: int
    lengths: Rows | None = None  # (num_rows,) of their texts
    buckets: int = 0  # batches that are sorted together; 0 or 1: none
    groups: tuple[Group, ...] = ()  # none: every row once an epoch

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch; a set smaller than a batch is one step."""
        return max(1, self.num_rows // self.batch_size)

    def rows(self, step: int) -> Rows:
        """Rows (batch_size,) of a global step."""
        epoch, place = divmod(step, self.per_epoch)
        plain = self.buckets < 2 or self.lengths is None
        order = self.epoch(epoch) if plain else bucketed_order(self, epoch)
        return batch_of(order, place, self.batch_size)

    def epoch(self, epoch: int) -> Rows:
        """Rows (num_rows,) of an epoch in turn, without buckets."""
        if self.groups:
            return grouped_order(self, epoch)
        return epoch_order(self.num_rows, self.seed, epoch)


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> Rows:
    """Rows of one global step: every epoch a new permutation, its remainder dropped.

    A set smaller than a batch is repeated within it.
    """
    per_epoch = max(1, num_rows // batch_size)
    epoch, place = divmod(step, per_epoch)
    return batch_of(epoch_order(num_rows, seed, epoch), place, batch_size)


def batch_of(order: Rows, place: int, size: int) -> Rows:
    """The `place`-th batch; what is smaller than one is repeated."""
    return np.resize(order[place * size : (place + 1) * size], size)  # copies what it is given


# Two, since an epoch's last batches are made while the next one's first are made ready.
@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> Rows:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)


@lru_cache(maxsize=2)
def grouped_order(order: Order, epoch: int) -> Rows:
    """An epoch's rows, each group's share of them, as many as there are rows in all."""
    ends = np.rint(np.cumsum([0, *(group.share for group in order.groups)]) * order.num_rows)
    counts = np.diff(ends.astype(np.int64)).tolist()
    parts = [
        stretch(group.rows, epoch * count, count, order.seed, number)
        for number, (group, count) in enumerate(zip(order.groups, counts, strict=True))
    ]
    together = np.concatenate(parts)
    shuffled: Rows = together[epoch_order(len(together), order.seed, epoch)]
    return shuffled


def stretch(rows: Rows, first: int, count: int, seed: int, group: int) -> Rows:
    """`count` rows from place `first` of an endless row of permutations, the group's own."""
    if not count:
        return rows[:0]
    start, stop = first // len(rows), (first + count - 1) // len(rows) + 1
    turns = []
    for turn in range(start, stop):  # apart from the streams of epochs and of their batches
        random = np.random.Generator(np.random.Philox(key=[seed, (2 + group) * 2**32 + turn]))
        turns.append(rows[random.permutation(len(rows))])
    own: Rows = np.concatenate(turns)[first - start * len(rows) :][:count]
    return own


@lru_cache(maxsize=2)
def bucketed_order(order: Order, epoch: int) -> Rows:
    """An epoch's rows, neighbouring batches sorted by length and then shuffled as batches."""
    assert order.lengths is not None
    size, count = order.batch_size, order.per_epoch
    rows = order.epoch(epoch)[: count * size]
    together = order.buckets * size
    windows = [rows[first : first + together] for first in range(0, len(rows), together)]
    ordered = [window[np.argsort(order.lengths[window], kind="stable")] for window in windows]
    if len(rows) < size:
        return rows
    batches = np.concatenate(ordered).reshape(count, size)
    random = np.random.Generator(np.random.Philox(key=[order.seed, 2**32 + epoch]))
    shuffled: Rows = batches[random.permutation(count)].reshape(-1)
    return shuffled
