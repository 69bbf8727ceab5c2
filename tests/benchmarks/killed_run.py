"""One process of `tests/benchmarks/kills.py`: a whole run by the stages themselves, or its check.

It tells on a pipe when a part of a stage begins ("images make", "images commit", "student train",
...) and, in an undisturbed run, how long each took and how often it touched a file. Told of a part
and a number, it dies as by `kill -9` when it touches a file for that time in that part.
"""

import hashlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline import aligning, pretraining, rounds
from pipeline.config import load_run
from pipeline.description import description_folder
from pipeline.leases import leased
from pipeline.ledger import enter
from pipeline.tables import Manifest, committed, read
from pipeline.upstream import steps
from pipeline.verification import verify

TRAININGS: dict[str, Callable[..., None]] = {
    "student": pretraining.train_student,
    "dpo": aligning.align_student,
}
TOUCHES = ("os.rename", "os.remove", "os.mkdir", "os.truncate", "fcntl.flock")


class Bell:
    """Tells the parent of each part; counts files touched; ends the process at its mark."""

    def __init__(self, line: Connection, mark: tuple[str, int] | None) -> None:
        self.line, self.mark, self.part = line, mark, ""
        self.touched: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        sys.addaudithook(self.hear)

    @contextmanager
    def rings(self, part: str) -> Iterator[None]:
        self.part, began = part, time.monotonic()
        self.line.send(part)
        yield
        self.part, self.seconds[part] = "", time.monotonic() - began

    def hear(self, event: str, words: tuple[Any, ...]) -> None:
        if not self.part or not (event in TOUCHES or (event == "open" and writes(words))):
            return
        if self.mark == (self.part, self.touched[self.part]):
            os.kill(os.getpid(), signal.SIGKILL)
        self.touched[self.part] += 1


def writes(words: tuple[Any, ...]) -> bool:
    mode, flags = words[1], words[2]
    return bool(set(str(mode or "")) & set("wax+")) or bool(flags & (os.O_WRONLY | os.O_RDWR))


def make(run: str, log: str, line: Connection, mark: tuple[str, int] | None) -> None:
    """Everything that is not there yet, as the flows do it; sends ("done", seconds, touches)."""
    quietly(log)
    config, bell = load_run(run), Bell(line, mark)
    upstream: dict[str, Manifest] = {}
    for name, stage, number in steps(config):
        values = rounds.at(config, number) if number else config
        above = rounds.seen_by(upstream, number) if number else upstream
        with leased(Path(config.root), name, config.name, stage.places(values, above)):
            found = stage.find(values, above)
            manifest = found or made(bell, name, stage, values, above)
            with bell.rings(f"{name} enter"):
                describe(stage, values, above, manifest)
                enter(values, {**above, stage.STAGE: manifest}, () if found else (stage.STAGE,))
        upstream[name] = manifest
    line.send(("done", bell.seconds, dict(bell.touched)))


def made(bell: Bell, name: str, stage: Any, config: Any, above: dict[str, Manifest]) -> Manifest:
    if name in TRAININGS:
        with bell.rings(f"{name} train"):
            TRAININGS[name](config, above)
        manifest: Manifest | None = stage.find(config, above)
        assert manifest is not None
        return manifest
    with bell.rings(f"{name} make"):
        plan = stage.plan(config, above)
        shards = [s for work in plan for s in stage.make(config, above, work, lambda rows: None)]
    with bell.rings(f"{name} commit"):
        committed: Manifest = stage.commit(config, above, shards)
        return committed


def describe(stage: Any, config: Any, above: dict[str, Manifest], manifest: Manifest) -> None:
    folder = description_folder(Path(config.root), stage.STAGE, manifest.content)
    if not (folder / "description.json").is_file():
        stage.describe(config, above, manifest).save(folder)


def check(run: str, log: str, line: Connection) -> None:
    """What `verify` finds damaged after a kill: nothing, one hopes."""
    quietly(log)
    root = Path(load_run(run).root)
    recorded = (root / "ledger").is_dir() or (root / "snapshots").is_dir()
    line.send([str(each) for each in verify(root, quarantine=False).damages] if recorded else [])


def look(run: str, log: str, line: Connection) -> None:
    quietly(log)
    line.send(inventory(Path(load_run(run).root)))


def inventory(root: Path) -> dict[str, dict[str, Any]]:
    """Every row and every byte that counts: files by sum, rows and ids and versions by table."""
    paths = [*root.glob("tables/*/data/*.lance"), *root.glob("checkpoints/*/*/*.safetensors")]
    files = {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    rows: dict[str, Any] = {}
    for snapshot in committed(root):
        table = read(root, snapshot)
        first = table.column_names[0]
        distinct = len(set(table[first].to_pylist()))
        rows[f"{snapshot.table} {snapshot.tag}"] = [table.num_rows, distinct, snapshot.content]
    versions = {
        each.name: len(list(each.glob("_versions/*.manifest")))
        for each in (root / "tables").glob("*.lance")
    }
    logs = {
        str(path.relative_to(root)): [row.split('"samples_per_second"')[0] for row in lines]
        for path in root.glob("checkpoints/*/**/log.jsonl")
        if (lines := path.read_text().splitlines())
    }
    return {"files": files, "rows": rows, "versions": versions, "logs": logs}


def quietly(log: str) -> None:
    """What it says goes to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
