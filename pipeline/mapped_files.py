"""Files on a local disk, mapped into memory when they are first read.

In:    paths.
Out:   the bytes of each file; what is in memory of them, and a hint to the disk of what comes.
Rerun: reads only. Pickled it is the paths alone, so that a process may be spawned with it. Threads
       may share it.
"""

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
HANDLES = 2  # a mapped file: the mapping's own, and one to ask what is in memory
SPARE_HANDLES = 256  # for everything else in the process


class NotFlat(Exception):  # noqa: N818
    """Why a column is not read from its pages."""


class MappedFiles:
    """Files that are mapped when they are first read. Pickled, it is their names alone."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._open: dict[int, tuple[int, Bytes]] = {}
        raise_handles(HANDLES * len(self.paths))

    def __reduce__(self) -> tuple[type["MappedFiles"], tuple[list[Path]]]:
        return MappedFiles, (self.paths,)

    def bytes_of(self, number: int) -> Bytes:
        return self._opened(number)[1]

    def is_there(self, number: int, place: int) -> bool:
        """Whether a byte is in memory. A system that does not tell is not asked to read ahead."""
        if not hasattr(os, "RWF_NOWAIT"):
            return True
        try:
            return bool(os.preadv(self._opened(number)[0], [bytearray(1)], place, os.RWF_NOWAIT))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def expect(self, number: int, first: int, size: int) -> None:
        """Begin to read a stretch; returns at once."""
        with suppress(OSError):
            os.posix_fadvise(self._opened(number)[0], first, size, os.POSIX_FADV_WILLNEED)

    def _opened(self, number: int) -> tuple[int, Bytes]:
        found = self._open.get(number)
        if found is None:
            handle = os.open(self.paths[number], os.O_RDONLY)
            content = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
            found = handle, np.frombuffer(content, np.uint8)
            # Another thread may have been faster; then this mapping goes with its last view.
            kept = self._open.setdefault(number, found)
            if kept is not found:
                os.close(handle)
                found = kept
        return found

    def __del__(self) -> None:
        for handle, _ in self._open.values():
            os.close(handle)


def raise_handles(more: int) -> None:
    """Let the process open so many files; NotFlat where the system forbids it."""
    try:
        import resource
    except ImportError:  # no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    wanted += more + SPARE_HANDLES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise NotFlat(f"{more} open files are wanted, and this system allows {hard} in all")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
