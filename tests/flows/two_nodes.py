"""A Ray cluster of two real nodes on this machine, for `test_runners.py`: each has its own raylet,
its own object store and its own processes, and one of them can be killed with all it has."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
# `PYTHONPATH` is what an image does elsewhere: nodes can import the flows.
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # on loopback; Ray has read its mode when the tests come here
    "RAY_DEDUP_LOGS": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_worker_niceness": "0",  # beside other work on these cores a nicer process stands still
    # A node that is gone is called dead after seconds, not after half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
SMALL: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 100_000_000,
    "include_dashboard": False,
}


def children(pid: int) -> list[int]:
    """All processes below one, by /proc."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(words[1]), []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def processes(node: Any) -> list[int]:
    """A node's own: its raylet and whatever that started."""
    own = [p.process.pid for each in node.all_processes.values() for p in each]
    return sorted({*own, *(below for pid in own for below in children(pid))})


def at_work(nodes: Sequence[Any], words: str = "RayTrainWorker") -> Any:
    """A node of these with a process of a training; None where there is none."""
    for node in nodes:
        for pid in processes(node):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if words in command:
                return node
    return None


def writes(pids: list[int]) -> list[str]:
    """Unfinished shards that these processes have open."""
    found = []
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(path)
            except OSError:
                continue
            if target.endswith(".part"):
                found.append(target)
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


OF_STUDENTS = ("samples-", "preferences-")  # tables of what a student drew


def files(folder: Path, of_students: bool = True) -> dict[str, bytes]:
    """Every data file below a root's tables, by its place."""
    tables = sorted((folder / "tables").iterdir())
    wanted = [path for path in tables if of_students or not path.name.startswith(OF_STUDENTS)]
    paths = [path for table in wanted for path in sorted(table.rglob("data/*.lance"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def living(pids: list[int]) -> Iterator[int]:
    yield from (pid for pid in pids if Path(f"/proc/{pid}").exists())
