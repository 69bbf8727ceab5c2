"""Work beside other work: what comes next is made ready, what is done is put away.

In:    an iterator of items, and what is to be done with each in threads.
Out:   results in the order of the items (`ahead`); a place to hand results to (`beside`).

Both hold a stated number of items and no more. An error in a thread is raised where its result is
waited for; an error outside ends the threads before it goes on.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Semaphore
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Abandoned(Exception):  # noqa: N818
    """Nothing more comes, and what came is not to be kept."""


class _End:
    """After the last item; `abandoned` when there would have been more."""

    def __init__(self, abandoned: bool) -> None:
        self.abandoned = abandoned


# --- before the work ----------------------------------------------------------------------------


@contextmanager
def ahead(
    items: Iterator[Item], work: Callable[[Item], Result], *, threads: int, depth: int
) -> Iterator[Iterator[Result]]:
    """`work(item)` of each in order, by so many threads, at most `depth` begun and not taken.

    The items themselves are drawn by one more thread, so that reading waits for nobody either.
    """
    free, begun = Semaphore(depth), SimpleQueue[Future[Result] | None]()
    left: list[bool] = []  # anything in it: nobody takes results any more

    def read() -> None:
        try:
            for item in items:
                free.acquire()
                if left:
                    return
                begun.put(pool.submit(work, item))
        finally:
            begun.put(None)

    def taken() -> Iterator[Result]:
        while (one := begun.get()) is not None:
            yield one.result()
            free.release()
        reader.result()  # its error, if it ended with one

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as reading:
        reader = reading.submit(read)
        try:
            yield taken()
        finally:
            left.append(True)
            free.release()
            reader.exception()
            pool.shutdown(wait=True, cancel_futures=True)


# --- after the work -----------------------------------------------------------------------------


class Outlet(Generic[Item, Result]):
    """Hands items to a consumer in a thread of its own."""

    def __init__(self, consume: Callable[[Iterator[Item]], Result], depth: int) -> None:
        self._free, self._waiting = Semaphore(depth), SimpleQueue[Item | _End]()
        self._threads = ThreadPoolExecutor(1)
        self._consumer = self._threads.submit(lambda: consume(self._items()))
        self._consumer.add_done_callback(lambda _: self._free.release())

    def put(self, item: Item) -> None:
        """Waits where the consumer is too far behind; raises what ended it."""
        self._free.acquire()
        if self._consumer.done():
            self._free.release()
            self._consumer.result()  # one that ended well wants no more
        else:
            self._waiting.put(item)

    def end(self) -> None:
        """No item follows; the consumer goes on by itself."""
        self._waiting.put(_End(abandoned=False))

    def finish(self) -> Result:
        """End, and wait for what the consumer makes of its items."""
        self.end()
        return self._consumer.result()

    def close(self) -> None:
        """End the consumer, whatever it has got so far, and wait for it."""
        self._waiting.put(_End(abandoned=True))
        self._consumer.exception()
        self._threads.shutdown()

    def _items(self) -> Iterator[Item]:
        while not isinstance(item := self._waiting.get(), _End):
            yield item
            self._free.release()
        if item.abandoned:
            raise Abandoned


@contextmanager
def beside(
    consume: Callable[[Iterator[Item]], Result], *, depth: int
) -> Iterator[Outlet[Item, Result]]:
    """An outlet; a block that ends before `finish` abandons what it has put there."""
    outlet = Outlet(consume, depth)
    try:
        yield outlet
    finally:
        outlet.close()
