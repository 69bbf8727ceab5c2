"""Spending: where the seconds of a run's root went, written down as they go.

In:    what was just done, told by whoever runs a stage.
Out:   <root>/spending/<stage>.jsonl, a line each time something was made: {"what": [names],
       "seconds": on the clock, "devices": that were busy}. Names are shards (`table/shard`), the
       folder of a checkpoint, or the content of a manifest, for what belongs to all of it.
Rerun: lines are added. A stage that is reused adds none and still shows what it cost when it was
       made; a shard that was made twice cost twice. A kill loses the time since the last line.

No clock reaches a table: this is beside them.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.buckets import BucketPath
from pipeline.config import QwenJudge, RunConfig
from pipeline.tables import Manifest, Shard

PROCESS = uuid4().hex[:12]


class Meter:
    """Charges the time since it was last asked to whatever was made in it."""

    def __init__(
        self,
        root: Path,
        stage: str,
        devices: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.devices, self.clock = path_of(root, stage), devices, clock
        self.last = clock()

    def charge(self, names: Iterable[str]) -> None:
        now = self.clock()
        self._write(names, now - self.last)
        self.last = now

    def add(self, names: Iterable[str], seconds: float) -> None:
        """What was measured elsewhere, beside others; the time here until now is in it."""
        self._write(names, seconds)
        self.last = self.clock()

    def _write(self, names: Iterable[str], seconds: float) -> None:
        line = {"what": list(names), "seconds": round(seconds, 3), "devices": self.devices}
        append(self.path, line)


def path_of(root: Path, stage: str) -> Path:
    return root / "spending" / f"{stage}.jsonl"


def append(path: Path, line: dict[str, object]) -> None:
    """One line that is on the disk when this returns; one torn by a kill is ended first.

    In a bucket nothing is added to: each process has a file of its own.
    """
    if isinstance(path, BucketPath):
        own = path.with_suffix("") / f"{PROCESS}.jsonl"
        before = own.read_bytes() if own.is_file() else b""
        own.write_bytes(before + json.dumps(line).encode() + b"\n")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = size > 0 and file.read() != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line."""
    alone = [path] if path.is_file() else []
    for file in sorted(path.with_suffix("").glob("*.jsonl")) if _in_bucket(path) else alone:
        for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # torn by a kill: its time is not known
            if isinstance(line, dict):
                yield line


def _in_bucket(path: Path) -> bool:
    return isinstance(path, BucketPath)


def device_seconds(root: Path, manifest: Manifest) -> float | None:
    """What a stage's manifest cost when it was made; None where nothing was written down."""
    found = _charged(root, manifest.stage, names_of(manifest))
    return _sum(found) if found else None


def spent_on(root: Path, stage: str, names: set[str]) -> float | None:
    """Device-seconds of all these; None unless each of them was written down."""
    found = _charged(root, stage, names)
    written = {name for line in found for name in line["what"]}
    return _sum(found) if names and names <= written else None


def _charged(root: Path, stage: str, names: set[str]) -> list[dict[str, Any]]:
    return [line for line in lines(path_of(root, stage)) if not names.isdisjoint(line["what"])]


def _sum(found: Iterable[dict[str, Any]]) -> float:
    return float(sum(line["seconds"] * line["devices"] for line in found))


def names_of(manifest: Manifest) -> set[str]:
    shards = {
        shard_name(shard, table.table)
        for table in manifest.snapshots.values()
        for shard in table.shards
    }
    folders = {str(Path(place).parent) for place in manifest.checkpoints.values()}
    return shards | folders | {manifest.content}


def shard_name(shard: Shard, table: str = "") -> str:
    return f"{shard.table or table}/{shard.name}"


def devices_of(config: RunConfig, stage: str) -> int:
    """Devices that are busy while a stage is made: those of its processes or of its servers."""
    if stage == "student" and config.student:
        return config.student.num_processes
    if stage == "dpo" and config.dpo:
        return config.dpo.num_processes
    if stage == "verdicts" and config.verdicts and isinstance(config.verdicts.judge, QwenJudge):
        return len(config.verdicts.judge.endpoints)
    return 1
