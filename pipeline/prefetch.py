"""What the next steps need, made ready in threads beside the step that runs.

In:    a pure function of a key, and which key follows one.
Out:   its value for the key that is asked for. Nothing that is made depends on threads: without any
       the same values are made when they are asked for.
Rerun: a key that was not foreseen is made at once, and what follows it is foreseen from there.

Who asks for a value that is still being made does not wait idly: it makes what no thread has begun.
An error in a thread is raised where its key is asked for. `close` drops what nobody asked for and
waits for what is being made; afterwards, keys are made when they are asked for.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from accelerate import Accelerator

from pipeline.config import LoopConfig
from pipeline.training import Part

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Prefetch(Generic[Key, Value]):
    """`threads` + 1 values are ready or being made, beside the one that is in use."""

    def __init__(
        self,
        make: Callable[[Key], Value],
        follow: Callable[[Key], Key | None],
        *,
        threads: int,
        expect: Callable[[Key], None] = lambda key: None,
    ) -> None:
        """`expect` is told of a key before it is made, so that a disk may begin: as many values
        before as may be made at once, by the threads and by who waits."""
        self._make, self._follow, self._expect = make, follow, expect
        self._depth = threads + 1 if threads else 0
        self._expected: Key | None = None  # the last that was told
        self._begun: dict[Key, Future[Value]] = {}
        self._threads = ThreadPoolExecutor(threads, "prefetch") if threads else None

    def __call__(self, key: Key) -> Value:
        mine = self._begun.pop(key, None)
        wanted = self._foreseen(key, self._depth)
        if mine is None and key != self._expected:
            for other in [key, *wanted[:-1]]:
                self._expect(other)
        if self._threads is None:
            return self._ready(key)
        for other in [other for other in self._begun if other not in wanted]:
            self._begun.pop(other).cancel()
        if mine is None:
            mine = self._threads.submit(self._ready, key)
        for other in wanted:
            if other not in self._begun:
                self._begun[other] = self._threads.submit(self._ready, other)
        if mine.cancel():  # no thread was free for it
            return self._ready(key)
        self._help(mine, wanted)
        return mine.result()

    def close(self) -> None:
        threads, self._threads = self._threads, None
        self._begun.clear()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _help(self, mine: Future[Value], wanted: Sequence[Key]) -> None:
        """Until `mine` is there, make what is wanted next."""
        for key in wanted:
            if mine.done():
                return
            if self._begun[key].cancel():
                made = self._begun[key] = Future()
                try:
                    made.set_result(self._ready(key))
                except Exception as error:  # for who asks for it
                    made.set_exception(error)

    def _ready(self, key: Key) -> Value:
        ahead = max(1, self._depth)
        coming = self._foreseen(key, ahead)
        if len(coming) == ahead:
            self._expected = coming[-1]
            self._expect(coming[-1])
        return self._make(key)

    def _foreseen(self, key: Key, count: int) -> list[Key]:
        keys: list[Key] = []
        for _ in range(count):
            after = self._follow(keys[-1] if keys else key)
            if after is None:
                break
            keys.append(after)
        return keys


# --- of a training ------------------------------------------------------------------------------


Place = tuple[int, Part]  # a step, and the part of its batch


def prefetched(
    prepare: Callable[[Place], Value],
    expect: Callable[[Place], None],
    loop: LoopConfig,
    steps: int,
    accelerator: Accelerator,
) -> Prefetch[Place, Value]:
    """`prepare` for what this process is asked for in a training of so many steps."""
    follow = partial(following, loop.accumulation, accelerator.process_index, steps)
    threads = loop.prefetch_threads
    if threads is None:
        threads = 0 if accelerator.device.type == "cpu" else 1
    return Prefetch(prepare, follow, threads=threads, expect=expect)


def following(accumulation: int, process_index: int, steps: int, place: Place) -> Place | None:
    """What the same process is asked for next; None after the last step."""
    step, part = place
    first = process_index * accumulation
    if part.index + 1 < first + accumulation:
        return step, Part(part.index + 1, part.count)
    return (step + 1, Part(first, part.count)) if step + 1 < steps else None
