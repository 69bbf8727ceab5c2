"""Memory that is used again once nobody holds what was in it.

In:    a number of bytes.
Out:   an array of bytes to be filled. Its memory goes back when the last array, buffer or tensor
       that shares it is gone, however far it was handed on.
Rerun: holds as many blocks as were out at the same time, and no more, until it is cleared.

The first touch of fresh memory costs more than reading a row: the system clears it page by page.
"""

import weakref
from threading import Lock

import numpy as np
from numpy.typing import NDArray

SPARE = 8  # a block is larger by an eighth than what is asked for: batches differ in length


class Blocks:
    """For arrays of about one size each; threads may share it. A copy for a process is empty."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Blocks"], tuple[()]]:
        return Blocks, ()

    def empty(self, size: int) -> NDArray[np.uint8]:
        """An array (size,) with anything in it."""
        block = self._block(size)
        # A view of a mere slice would be one of the block and not keep the slice alive. No lock in
        # what is called when it is gone: it may be called at any time, in a thread that holds it.
        lent = np.frombuffer(block.data, np.uint8, size)
        weakref.finalize(lent, self._free.append, block).atexit = False
        return lent

    def clear(self) -> None:
        """Give back what nobody holds."""
        with self._lock:
            self._free.clear()

    def _block(self, size: int) -> NDArray[np.uint8]:
        with self._lock:
            self._free.sort(key=len)
            for place, block in enumerate(self._free):
                if len(block) >= size:
                    return self._free.pop(place)
            if self._free:  # too small for what is asked for now: another takes its place
                self._free.pop()
        return np.empty(1 + size + size // SPARE, np.uint8)
