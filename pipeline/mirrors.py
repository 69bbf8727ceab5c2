"""Mirrors: files of a bucket's tables on this disk, so that reading them is as with a folder.

In:    a version of a table in a bucket, the shards to be read.
Out:   a root on this disk that holds the version's manifest and these data files, for as long as
       the reader is at it. A file comes whole, once, and is compared with its checksum on its way.
Rerun: what is here stays until the room is needed: LIGHTGEN_CACHE_GIB (100 unless given). Files
       that nobody reads go first, those read longest ago before others.
"""

import atexit
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from pipeline.buckets import BucketPath
from pipeline.disk import writing
from pipeline.places import data_file, table_path, version_file
from pipeline.roots import cache, known_sha256, near
from pipeline.snapshots import Shard, Snapshot

LIMIT = "LIGHTGEN_CACHE_GIB"
DEFAULT_GIB = 100.0
THREADS = 8
_READING = ExitStack()  # locks of tables that this process takes rows from until its end
atexit.register(_READING.close)


class Damaged(ValueError):  # noqa: N818
    """A file did not come, or not as it was written; the sentence names it."""


def limit_bytes() -> int:
    """ValueError for a limit that is no number."""
    given = os.environ.get(LIMIT) or DEFAULT_GIB
    try:
        return int(float(given) * 2**30)
    except ValueError:
        raise ValueError(f"{LIMIT}: {given!r}; a number of GiB is allowed") from None


@contextmanager
def mirrored(root: Path, snapshot: Snapshot, shards: Sequence[Shard]) -> Iterator[Path]:
    """A root on this disk with these shards; they stay while the body runs."""
    if not isinstance(root, BucketPath):
        yield root
        return
    _bring_all(root, snapshot, shards)
    with ExitStack() as stack:
        for shard in shards:
            stack.enter_context(_held(_file(root, snapshot, shard), shard))
        yield near(root)


def at_hand(root: Path, snapshot: Snapshot) -> Path:
    """The root to take rows from again and again, until this process ends.

    Of a bucket that is this disk where the whole version fits into the limit, else the bucket.
    """
    if not isinstance(root, BucketPath) or not _fits(snapshot):
        return root
    table = near(table_path(root, snapshot.table))
    with writing(table):
        table.mkdir(parents=True, exist_ok=True)
        _READING.enter_context(_lock(table, fcntl.LOCK_SH))
    _bring_all(root, snapshot, snapshot.shards)
    for shard in snapshot.shards:
        with _held(_file(root, snapshot, shard), shard):
            pass
    return near(root)


def is_mirrored(root: Path, snapshot: Snapshot) -> bool:
    """Is all of a version on this disk?"""
    files = [data_file(root, snapshot.table, shard.name) for shard in snapshot.shards]
    return all(near(file).exists() for file in files)


def _fits(snapshot: Snapshot) -> bool:
    return sum(shard.size for shard in snapshot.shards) <= limit_bytes()


def _file(root: BucketPath, snapshot: Snapshot, shard: Shard) -> BucketPath:
    return BucketPath(data_file(root, snapshot.table, shard.name))


def _bring_all(root: BucketPath, snapshot: Snapshot, shards: Sequence[Shard]) -> None:
    """Several at once: one request alone does not fill a line."""
    manifest = BucketPath(version_file(root, snapshot.table, snapshot.version))
    if not near(manifest).exists() and manifest.exists():
        _bring(manifest)
    files = [(_file(root, snapshot, shard), shard) for shard in shards]
    missing = [(file, shard) for file, shard in files if not near(file).exists()]
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in threads.map(lambda each: _bring(*each), missing):
            pass


@contextmanager
def _held(file: BucketPath, shard: Shard) -> Iterator[None]:
    """The file on this disk, with a lock that says that it is being read."""
    here = near(file)
    with ExitStack() as stack:
        while True:
            handle = _opened(here)
            if handle is None:
                _bring(file, shard)
                continue
            stack.enter_context(handle)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if not os.fstat(handle.fileno()).st_nlink:  # it went while we waited
                continue
            if known_sha256(here) == shard.sha256:
                break
            here.unlink(missing_ok=True)  # of a shard that was made again since
        # When it was read, and not when it was written: by that its sum is known.
        os.utime(here, ns=(time.time_ns(), here.stat().st_mtime_ns))
        yield


def _bring(file: BucketPath, shard: Shard | None = None) -> None:
    """Once, whoever else on this machine wants it now."""
    here = near(file)
    part = here.with_name(f".{here.name}.part")
    with writing(here):
        here.parent.mkdir(parents=True, exist_ok=True)
        while not here.exists():
            with part.open("ab") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                ours = part.exists() and part.stat().st_ino == os.fstat(handle.fileno()).st_ino
                if ours and not here.exists():
                    _receive(file, part, shard)
                    part.replace(here)


def _receive(file: BucketPath, part: Path, shard: Shard | None) -> None:
    make_room(shard.size if shard else 0)
    try:
        came = file.fetch(part)
    except FileNotFoundError as error:
        raise Damaged(f"{file} is missing") from error
    if shard is not None and came != shard.sha256:
        raise Damaged(f"{file} has another checksum than when it was written")


# --- room ---------------------------------------------------------------------------------------


def make_room(size: int) -> None:
    """Delete data files that nobody reads until `size` bytes more are within the limit."""
    files = [(path, path.stat()) for path in cache().glob("**/tables/*.lance/data/*.lance")]
    held = sum(state.st_size for _, state in files)
    for path, state in sorted(files, key=lambda each: each[1].st_atime):
        if held + size <= limit_bytes():
            return
        if _unread(path):
            held -= state.st_size


def _unread(path: Path) -> bool:
    """Delete a file unless somebody reads it or its table."""
    handle = _opened(path)
    if handle is None:
        return False
    try:
        with handle, _lock(path.parent.parent, fcntl.LOCK_EX | fcntl.LOCK_NB):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    return True


def _opened(here: Path) -> IO[bytes] | None:
    try:
        return here.open("rb")
    except FileNotFoundError:
        return None


@contextmanager
def _lock(table: Path, kind: int) -> Iterator[None]:
    """Of a whole table: who reads many files of it holds one lock, not one a file."""
    with (table / ".reading").open("w") as file:
        fcntl.flock(file, kind)
        yield
