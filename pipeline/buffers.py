"""Memory for batches, used again once nobody holds the batch that was in it.

In:    a number of bytes.
Out:   a tensor of bytes to be filled. Its memory goes back when the last tensor, view or array that
       shares it is gone, however far it was handed on.
Rerun: holds as many blocks as were out at the same time, and no more.

The first touch of fresh memory costs more than reading a row: the system clears it page by page. A
GPU reads pinned memory by itself; that has a cache of its own, in torch, which also waits for the
copies that are under way.
"""

import weakref
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SPARE = 8  # a block is larger by an eighth than what is asked for: batches differ in length


class Buffers:
    """For tensors of about one size each; threads may share it."""

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._free: list[NDArray[np.uint8]] = []
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Buffers"], tuple[bool]]:
        return Buffers, (self.pinned,)

    def empty(self, size: int) -> Tensor:
        """A tensor (size,) of bytes with anything in it."""
        if self.pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        block = self._block(size)
        lent = block[:size]
        # The tensor keeps `lent` alive, and every view of the tensor does. No lock in what is
        # called then: it may be called at any time, in a thread that holds it.
        weakref.finalize(lent, self._free.append, block).atexit = False
        return torch.from_numpy(lent)

    def _block(self, size: int) -> NDArray[np.uint8]:
        with self._lock:
            self._free.sort(key=len)
            for place, block in enumerate(self._free):
                if len(block) >= size:
                    return self._free.pop(place)
            if self._free:  # too small for what is asked for now: another takes its place
                self._free.pop()
        return np.empty(size + size // SPARE, np.uint8)
