"""Kills `-9` at random moments of the debug run, and whether the same command then ends it alike.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.kills --kills 200 --flows 24 --seed 1

A run is killed in a part drawn at random (a stage's shards, its commit, a training, the entry in
the ledger), by another process after a random time in it, or by itself when it touches a file for
the n-th time in it; then it is started again, and killed again further on, until it ends. After
each kill nothing recorded may be damaged; at each end rows, ids, data files, weights, table
versions and logs are those of an undisturbed run. `--flows` of the kills strike real flows and
their training processes beside a Prefect server of their own (`tests/benchmarks/killed_flows.py`).
Only processes that were started here are ever killed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks import killed_run
SPAWN = multiprocessing.get_context("forkserver")  # the imports are done once
AHEAD = 4  # parts from which the next victim is drawn
LIMIT = 300.0  # seconds after which a process that says nothing counts as stuck


class Trial:
    """One root, killed again and again until its run ends."""

    def __init__(self, folder: Path, values: Callable[[Path], dict[str, Any]]) -> None:
        folder.mkdir(parents=True)
        self.run, self.log = str(folder / "debug.yaml"), str(folder / "log")
        self.root = folder / "artifacts"
        Path(self.run).write_text(yaml.safe_dump(values(self.root)))

    def start(self, task: Callable[..., None], *rest: Any) -> tuple[Any, Connection]:
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=task, args=(self.run, self.log, there, *rest))
        process.start()
        there.close()
        return process, here

    def ask(self, task: Callable[..., None]) -> Any:
        process, line = self.start(task)
        answer = line.recv() if line.poll(LIMIT) else None
        process.join()
        return answer

    def whole(self) -> tuple[dict[str, float], dict[str, int]]:
        """Make it undisturbed: how long each part takes, how often it touches a file."""
        process, line = self.start(killed_run.make, None)
        heard = list(until_end(line))
        process.join()
        if process.exitcode:
            raise SystemExit(f"the undisturbed run failed:\n{Path(self.log).read_text()[-3000:]}")
        return heard[-1][1], heard[-1][2]


def until_end(line: Connection) -> Any:
    """What a process says until it ends; EOFError ends a generator no more than a loop."""
    while line.poll(LIMIT):
        try:
            yield line.recv()
        except EOFError:
            return
    raise SystemExit(f"a process said nothing for {LIMIT} s")


class Killer:
    def __init__(self, seed: int, seconds: dict[str, float], touches: dict[str, int]) -> None:
        self.random = random.Random(seed)
        self.seconds, self.touches, self.parts = seconds, touches, list(seconds)
        self.struck: Counter[tuple[str, str]] = Counter()

    def draw(self, reached: int) -> tuple[int, str]:
        """The next part to strike in, and how; trainings are drawn three times as often."""
        window = list(range(reached, min(reached + AHEAD, len(self.parts))))
        weights = [3 if self.parts[n].endswith("train") else 1 for n in window]
        (number,) = self.random.choices(window, weights)
        by_file = self.touches.get(self.parts[number], 0) and self.random.random() < 0.5
        return number, "file" if by_file else "time"

    def strike(self, trial: Trial, number: int, how: str) -> str:
        """Run, kill; in which part it died, "" where it ended before."""
        part, mark = self.parts[number], None
        if how == "file":
            mark = (part, self.random.randrange(self.touches[part]))
        wait = self.random.uniform(0, self.seconds[part])
        process, line = trial.start(killed_run.make, mark)
        handle, now = os.pidfd_open(process.pid), ""
        for said in until_end(line):
            now = said if isinstance(said, str) else ""
            if how == "time" and now == part:
                time.sleep(wait)
                kill(handle)
        os.close(handle)
        process.join()
        if process.exitcode == -signal.SIGKILL:
            self.struck[now.split()[-1] if now else "between", how] += 1
            return now
        if process.exitcode:
            raise SystemExit(f"a resumed run failed:\n{Path(trial.log).read_text()[-3000:]}")
        return ""


def kill(handle: int) -> None:
    """By a handle, never by a number that may be another's by now."""
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return  # it was faster


def differences(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{kind} {name}: {one[kind].get(name)} against {other[kind].get(name)}"
        for kind in one
        for name in sorted({*one[kind], *other[kind]})
        if one[kind].get(name) != other[kind].get(name)
    ]


class Count:
    """What the table says at the end."""

    def __init__(self) -> None:
        self.kills = self.runs = self.damaged = 0
        self.wrong: list[str] = []
        self.left: Counter[str] = Counter()

    def end(self, trial: Trial, reference: dict[str, dict[str, Any]]) -> None:
        found = differences(reference, trial.ask(killed_run.look))
        self.runs += 1
        self.wrong += found
        for path in trial.root.rglob("*"):
            if path.name.endswith((".part", ".partial")) or path.parent.name == "leases":
                self.left[path.suffix or path.name] += 1
        for line in found:
            print(f"DIFFERENT {trial.root}: {line}", flush=True)
        if not found:
            shutil.rmtree(trial.root.parent)


def through(killer: Killer, trial: Trial, count: Count, most: int) -> None:
    """Kill one run on its way until it ends by itself, at most to `most` kills in all."""
    reached = 0
    while count.kills < most and reached < len(killer.parts):
        number, how = killer.draw(reached)
        now = killer.strike(trial, number, how)
        if not now:
            return
        count.kills, reached = count.kills + 1, killer.parts.index(now)
        damaged = trial.ask(killed_run.check)
        count.damaged += len(damaged)
        print(f"{count.kills}: by {how} in {now}; {damaged or 'nothing damaged'}", flush=True)
        reached += killer.random.random() < 0.5  # else perhaps the same part once more
    trial.whole()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flows", type=int, default=24, help="how many of them strike flows")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    from tests.flows.conftest import debug_values  # here: what is killed need not load Prefect

    SPAWN.set_forkserver_preload([killed_run.__name__])
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    print(f"seed {args.seed}, in {folder}", flush=True)
    began, whole, count = time.monotonic(), Trial(folder / "whole", debug_values), Count()
    killer = Killer(args.seed, *whole.whole())
    reference = whole.ask(killed_run.look)
    print(killer.seconds, killer.touches, flush=True)
    while count.kills < args.kills - args.flows:
        trial = Trial(folder / f"run-{count.runs}", debug_values)
        through(killer, trial, count, args.kills - args.flows)
        count.end(trial, reference)
    for (part, how), number in sorted(killer.struck.items()):
        print(f"| {part} | {how} | {number} |")
    print(count.kills, count.runs, count.damaged, len(count.wrong), dict(count.left))
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    sys.exit(bool(count.wrong or count.damaged))


if __name__ == "__main__":
    main()
