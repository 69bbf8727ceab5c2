"""Memory for batches: tensors over memory that is used again (`pipeline.blocks`).

In:    a number of bytes.
Out:   a tensor of bytes to be filled.
Rerun: holds as many blocks as were out at the same time, and no more.

A GPU reads pinned memory by itself; that has a cache of its own, in torch, which also waits for the
copies that are under way.
"""

import torch
from torch import Tensor

from pipeline.blocks import Blocks


class Buffers:
    """For tensors of about one size each; threads may share it."""

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._blocks = Blocks()

    def empty(self, size: int) -> Tensor:
        """A tensor (size,) of bytes with anything in it."""
        if self.pinned:
            return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(self._blocks.empty(size))
