"""Batches as large as the device's memory holds.

In:    items, and work on a batch of them.
Out:   the work's results, batch by batch, in order. A batch that memory does not hold is halved,
       and so are all that follow; where even one item does not fit it is a `ValueError`.
"""

import logging
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Items(Sized, Protocol):
    """A sequence or a tensor."""

    def __getitem__(self, chosen: slice, /) -> "Items": ...


Some = TypeVar("Some", bound=Items)


@dataclass
class BatchSize:
    """How many items are worked on at once; it only ever falls."""

    value: int
    name: str  # of the run's value
    refusal: str  # what does not fit, and where the run says so
    advice: str  # what to change then

    def through(self, items: Some, work: Callable[[Some], Result]) -> Iterator[Result]:
        """`work(batch)` over all items."""
        import torch

        done = 0
        while done < len(items):
            result, batch = None, cast(Some, items[done : done + self.value])
            try:
                result = work(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ValueError(
                        f"{self.refusal} does not fit this machine's memory even at "
                        f"{self.name} 1 ({error}); {self.advice}"
                    ) from error
            if result is None:  # outside the except, whose error holds on to tensors
                self.value = len(batch) // 2
                logger.warning("out of memory: %s is now %s", self.name, self.value)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
            else:
                done += len(batch)
                yield result
