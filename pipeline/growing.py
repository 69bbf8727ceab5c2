"""The checksum of a file, taken while it is being written.

In:    a folder in which one file is written from its first byte to its last, under any name.
Out:   its sha256, soon after the last byte.
Rerun: reads only.

To sum a file up takes about as long as to write it. A writer that goes back to what it has written
would make the sum another than the file's; those of data files only go on.

What is summed of a large file goes to the disk at once and then out of memory. Otherwise a shard
lies there until its fsync, which then waits for all of it; and each page of it is a fresh one.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Event

PIECE = 2**20
WINDOW = 32 * 2**20  # of a file stays in memory, at least; with 8 MiB it is as fast
PAUSE = 0.02  # seconds, when everything there is has been read


@contextmanager
def summed_beside(folder: Path) -> Iterator[Callable[[], str]]:
    """What the block gets is called once the file is whole, and gives its sum."""
    whole = Event()
    with ThreadPoolExecutor(1) as beside:
        summed = beside.submit(_summed, folder, whole)

        def finished() -> str:
            whole.set()
            return summed.result()

        try:
            yield finished
        finally:
            whole.set()


def _summed(folder: Path, whole: Event) -> str:
    total, piece = hashlib.sha256(), memoryview(bytearray(PIECE))
    file = _opened(folder, whole)
    if file is None:  # its writer failed
        return ""
    with file:
        last, read, asked = False, 0, 0
        while not last:
            last = whole.wait(PAUSE)
            while got := file.readinto(piece):
                total.update(piece[:got])
                read += got
                if read >= asked + WINDOW:
                    # Begins to write what is new to the disk, and drops what is there already.
                    os.posix_fadvise(file.fileno(), 0, read, os.POSIX_FADV_DONTNEED)
                    asked = read
    return total.hexdigest()


def _opened(folder: Path, whole: Event) -> FileIO | None:
    """The file as soon as it is there, which may get another name; None where it never is."""
    while True:
        last = whole.wait(PAUSE)
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # it just got it
                return FileIO(path)
        if last:
            return None
