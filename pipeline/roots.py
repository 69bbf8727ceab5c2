"""Roots: where a run's artifacts lie, a folder or a bucket, and what stands near for a bucket.

In:    `root` of a run: `artifacts/tiny`, or `s3://bucket/prefix` (`pipeline.buckets`).
Out:   paths below it. For a bucket also a folder near, on this disk: LIGHTGEN_CACHE, else
       ~/.cache/lightgen. What programs must have as files lies there: a training while it runs,
       files of tables that were read (`pipeline.mirrors`), readings of sources, judges' answers.
Rerun: a root that is a folder is its own near folder, and every function here hands it back.

Of a training the bucket has all that its newest state needs, so that another machine goes on with
it: logs first, then sums, then states; a finished one ends with its manifest.
"""

import argparse
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote
from uuid import uuid4

from pipeline.buckets import EXTRA, SCHEME, SHA256, BucketPath, check_root, refusal, settings
from pipeline.disk import unwritable, writing
from pipeline.seals import sum_of

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 16
CACHE = "LIGHTGEN_CACHE"
STATE = "state-*.pt"
LARGE = (STATE, "*.safetensors")  # of a training, not needed to tell of it
DONE = "manifest.json"


def root_of(root: str | Path) -> Path:
    """The root as a path; ValueError for a kind of store that is not known."""
    if isinstance(root, Path):
        return root
    check_root(root)
    if not root.startswith(SCHEME):
        return Path(root)
    if find_spec("obstore") is None:
        raise ValueError(f"root: {root!r} needs the extra 's3': {EXTRA}")
    return BucketPath(root)


def root_argument(root: str) -> Path:
    """`root_of` for a command line, which says what is wrong with a value and ends."""
    try:
        return root_of(root)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def unusable(root: Path) -> str:
    """Why nothing can be kept below `root`; empty where it can."""
    if isinstance(root, BucketPath):
        return refusal(root) or unwritable(near(root))
    return unwritable(root)


def near(path: Path) -> Path:
    """The file or folder on this disk that stands for one in a bucket; else the path itself."""
    if not isinstance(path, BucketPath):
        return path
    if ".." in path.parts:
        raise ValueError(f"{path} is not below its root: the record that names it is not ours")
    # Two stores may have a bucket of one name.
    store = hashlib.sha256(repr(settings()).encode()).hexdigest()[:8]
    return cache() / f"{quote(path.bucket, safe='')}@{store}" / Path(*path.parts[2:])


def cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "lightgen").absolute()


def far(path: Path) -> BucketPath | None:
    """The place in a bucket that a path of a near folder stands for; None for any other path."""
    if isinstance(path, BucketPath) or not path.is_relative_to(cache()):
        return None
    first, *rest = path.relative_to(cache()).parts
    return BucketPath(SCHEME + unquote(first.rpartition("@")[0]), *rest)


def each(root: Path, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Of every item. Many small files of a bucket are asked for at once: most of it is waiting."""
    if not isinstance(root, BucketPath):
        return [function(item) for item in items]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(function, items))


# --- single files -------------------------------------------------------------------------------


def fetched(path: Path, but: Sequence[str] = ()) -> Path:
    """A file or folder on this disk with the bytes of that in the bucket, as they were sent.

    `but`: patterns of names that are left there.
    """
    if not isinstance(path, BucketPath):
        return path
    for found in [path] if path.is_file() else path.rglob("*"):
        if found.is_file() and not any(found.match(name) for name in but):
            _fetch(found)
    return near(path)


def _fetch(path: BucketPath) -> None:
    """ValueError where the bucket holds other bytes than were sent."""
    here, wanted = near(path), path.stated().get(SHA256)
    if here.is_file() and wanted == known_sha256(here):
        return
    part = here.with_name(f".{here.name}.{uuid4().hex}.part")
    with writing(here):
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            came = path.fetch(part)
            if wanted not in (None, came):
                raise ValueError(
                    f"{path} has another checksum than when it was written: verify moves it aside"
                )
            part.replace(here)
        finally:
            part.unlink(missing_ok=True)


def known_sha256(path: Path) -> str:
    """A file that was not touched is summed once a process."""
    state = path.stat()
    return _sha256(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- trainings ----------------------------------------------------------------------------------


def bring(folder: Path) -> None:
    """Before a training: its files from the bucket, unless what lies near is further on."""
    place = far(folder)
    if place is None:
        return
    with _alone(folder):
        there = [path for path in place.rglob("*") if path.is_file()]
        finished = any(path.parent == place and path.name == DONE for path in there)
        behind = _furthest(folder, folder.rglob(STATE)) < _furthest(place, place.rglob(STATE))
        for path in there:
            if finished or behind or not near(path).exists():
                _fetch(path)


def follow(folder: Path) -> None:
    """The states of the bucket, these alone: for a process beside the one that sends them."""
    place = far(folder)
    if place is None:
        return
    with _alone(folder):
        there = [path for path in place.rglob(STATE) if path.is_file()]
        for path in set(folder.rglob(STATE)) - {near(path) for path in there}:
            path.unlink()
        for path in there:
            _fetch(BucketPath(sum_of(path)))
            _fetch(path)


def send(folder: Path) -> None:
    """Put what is new in a training's folder into its bucket, so that others can go on with it."""
    place = far(folder)
    if place is None:
        return
    held = {path.relative_to(place) for path in place.rglob("*") if path.is_file()}
    files = [path for path in folder.rglob("*") if path.is_file() and not _passing(folder, path)]
    # A state comes last: who sees it has all that it needs.
    for path in sorted(files, key=lambda path: (path.match(STATE), path)):
        name = path.relative_to(folder)
        if path.match(STATE) and name in held:  # written once
            continue
        goal = place / name
        if name not in held or goal.stated().get(SHA256) != known_sha256(path):
            goal.send(path, known_sha256(path), absent=False)


def training_of(folder: Path) -> Path:
    """The folder of a training that a phase's folder lies in, which is what is sent."""
    place = far(folder)
    if place is None or "checkpoints" not in place.parts:
        return folder
    below = len(place.parts) - place.parts.index("checkpoints") - 2
    return folder if below < 1 else folder.parents[below - 1]


def drop(path: Path) -> None:
    """Delete a file here and in its bucket."""
    path.unlink(missing_ok=True)
    place = far(path)
    if place is not None:
        place.unlink()


def _furthest(folder: Path, states: Iterator[Path]) -> str:
    """Phases and steps are numbered so that the last name is the last state."""
    return max((path.relative_to(folder).as_posix() for path in states), default="")


def _passing(folder: Path, path: Path) -> bool:
    """Files on their way, and what trackers write for other programs."""
    parts = path.relative_to(folder).parts
    return "tracking" in parts or any(part.startswith(".") for part in parts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The processes of a training on one machine bring its files once."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".bringing").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
