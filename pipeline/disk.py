"""What a disk refuses, said in one sentence: it is full, read-only, or not ours to write.

In:    the place that is being written, and whatever goes wrong while it is.
Out:   `DiskRefused` with the place, the reason and what to do; every other error passes as it is.
Rerun: the same command goes on where it stopped: what was whole before is kept.

Libraries in Rust and C++ tell of a full disk in words only, so their words are read, too.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
FULL_WORDS = ("No space left on device", *(f"os error {number})" for number in FULL))
CLOSED_WORDS = ("Read-only file system", *(f"os error {number})" for number in CLOSED))
TORCH_WORDS = ("PytorchStreamWriter failed", "inline_container")  # it does not say why
MIN_FREE_BYTES = 2**20


class DiskRefused(OSError):  # noqa: N818
    """A place cannot be written; the sentence names it, why, and what to do."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Errors of the body that the disk caused become `DiskRefused`."""
    try:
        yield
    except DiskRefused:
        raise
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if sentence := refusal(place, error):
            raise DiskRefused(sentence) from error
        raise


def refusal(place: Path, error: BaseException) -> str:
    """The sentence; empty where the error is of another kind, or of a place elsewhere."""
    number, words = getattr(error, "errno", None), str(error)
    named = Path(str(getattr(error, "filename", None) or place)).absolute()
    if not named.is_relative_to(place.absolute().parent):
        return ""
    if number in FULL or _has(words, FULL_WORDS) or _torch_was_full(place, words):
        return (
            f"the disk is full at {place} ({free_bytes(place) / 2**20:,.0f} MiB free): free some "
            "space, or lift the quota, and run the same command again; what is whole is kept"
        )
    if number in CLOSED or _has(words, CLOSED_WORDS):
        return (
            f"{place} cannot be written ({_why(number)}): make it writable, or give the run "
            "another root, and run the same command again"
        )
    return ""


def unwritable(root: Path) -> str:
    """Why nothing can be written below `root`, there or not; empty where it can."""
    there = existing(root)
    if os.access(there, os.W_OK | os.X_OK):
        return ""
    closed = os.statvfs(there).f_flag & os.ST_RDONLY
    return f"{there} is {'on a read-only file system' if closed else 'not writable for this user'}"


def free_bytes(place: Path) -> int:
    return shutil.disk_usage(existing(place)).free


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _has(words: str, signs: tuple[str, ...]) -> bool:
    return any(sign in words for sign in signs)


def _torch_was_full(place: Path, words: str) -> bool:
    return _has(words, TORCH_WORDS) and free_bytes(place) < MIN_FREE_BYTES


def _why(number: int | None) -> str:
    return os.strerror(number) if number else os.strerror(errno.EROFS)
