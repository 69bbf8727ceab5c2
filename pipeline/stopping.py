"""Told to end: a training finishes its step, saves its state and leaves, all processes alike.

In:    SIGTERM, from a cancelled flow, a scheduler that takes its machine back, a container's stop;
       or a file that appears, where no signal reaches a process (`listening`).
Out:   status 143, the state of the last step on the disk.
Rerun: goes on at that step. Where step and state take longer than `SECONDS_TO_LEAVE` the kernel
       ends it, and the state that was saved before stands.
"""

import fcntl
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from pipeline.disk import writing

SECONDS_TO_LEAVE = 12  # below what `flows.launch` waits, which is below what a worker waits
SECONDS_TO_WAIT = 60.0  # for one that was told to end and still holds the folder
LEFT = 128 + signal.SIGTERM
LISTEN_SECONDS = 1.0
_WORD = threading.Event()  # said to this process otherwise than by a signal


class Ending:
    """Whether to leave after this step; asked by every process at every step."""

    def __init__(self) -> None:
        self.told = False
        # Over the CPU: asking a GPU would wait for the step each time.
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.group = dist.new_group(backend="gloo") if several else None

    def hear(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.told:
            self.told = True
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS_TO_LEAVE)

    def asked(self) -> bool:
        """True for all processes at the same step, once one of them was told."""
        told = self.told or _WORD.is_set()
        if self.group is None:
            return told
        flag = torch.tensor(int(told))
        dist.all_reduce(flag, dist.ReduceOp.MAX, self.group)
        return bool(flag)


@contextmanager
def hearing() -> Iterator[Ending]:
    """While the body runs SIGTERM asks; a thread beside the main one hears nothing."""
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = signal.signal(signal.SIGTERM, ending.hear)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def listening(word: Path) -> Iterator[None]:
    """While the body runs, a training of this process ends once the file `word` is there."""
    done = threading.Event()
    _WORD.clear()

    def listen() -> None:
        while not done.wait(LISTEN_SECONDS):
            if word.is_file():
                _WORD.set()
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        done.set()
        listener.join()
        _WORD.clear()


@contextmanager
def alone(folder: Path, seconds: float = SECONDS_TO_WAIT) -> Iterator[None]:
    """One training at a time in a folder; the lock goes with the process, however that ends.

    ValueError when another one holds it for longer than a training takes to leave.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        until = time.monotonic() + seconds
        while not _locked(file.fileno()):
            if time.monotonic() > until:
                raise ValueError(
                    f"another training is at work in {folder}: wait for it, or cancel its run"
                )
            time.sleep(0.2)
        yield


def _locked(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
