"""Leases: which files a running stage reads and writes, so that nobody removes them.

In:    a root, a stage, the places that it holds (below the root; a folder holds what is in it).
Out:   <root>/leases/<stage>-<pid>-<id>.json, locked by the process that wrote it.
Rerun: the kernel ends the lock with the process, however that ends: no heartbeat, no clock. A file
       that can be locked belongs to nobody.

In a bucket a lease is an object that the stage takes back at its end. Of a killed one nobody knows
that it is dead: it is believed for a week.

On a file system that machines share it must carry locks, as NFS 4 does; where it does not, the age
that `pipeline.retention` waits is what protects a running stage.

Who removes things holds the gate meanwhile: a stage that begins then waits for a moment.
"""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from pipeline.buckets import BucketPath
from pipeline.disk import writing
from pipeline.roots import near

BELIEVED_SECONDS = 7 * 24 * 3600  # of a lease in a bucket


@dataclass(frozen=True)
class Lease:
    stage: str
    run: str
    pid: int
    host: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.stage}/{self.run} (process {self.pid} on {self.host})"

    def holds(self, place: str) -> bool:
        """Is `place` one of these, inside one, or around one?"""
        return any(
            place == own or place.startswith(f"{own}/") or own.startswith(f"{place}/")
            for own in self.places
        )


@contextmanager
def leased(root: Path, stage: str, run: str, places: Sequence[str]) -> Iterator[None]:
    """Hold these places while the body runs."""
    lease = Lease(stage, run, os.getpid(), platform.node(), tuple(places))
    path = root / "leases" / f"{stage}-{os.getpid()}-{uuid4().hex[:8]}.json"
    if isinstance(path, BucketPath):
        path.write_text(json.dumps(asdict(lease)))
        try:
            yield
        finally:
            path.unlink()
        return
    with gate(root):
        file = path.open("w", encoding="utf-8")
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(asdict(lease), file)
        file.flush()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def living(root: Path) -> list[Lease]:
    """The leases of processes that are there. Ask while you hold the gate."""
    found = []
    for path in sorted((root / "leases").glob("*.json")):
        if not _free(path):
            values = json.loads(path.read_text(encoding="utf-8"))
            found.append(Lease(**values | {"places": tuple(values["places"])}))
    return found


def abandoned(root: Path) -> list[Path]:
    """The files of leases whose process was killed. Ask while you hold the gate."""
    return [path for path in sorted((root / "leases").glob("*.json")) if _free(path)]


def _free(path: Path) -> bool:
    if isinstance(path, BucketPath):
        return time.time() - path.stat().st_mtime > BELIEVED_SECONDS
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def gate(root: Path) -> Iterator[None]:
    """One at a time begins a stage or removes what is not needed. On this machine."""
    with (_folder(near(root)) / ".gate").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _folder(root: Path) -> Path:
    folder = root / "leases"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder
