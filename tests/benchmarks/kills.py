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

from tests.benchmarks import killed_flows, killed_run
from tests.flows.own_server import OwnServer

SPAWN = multiprocessing.get_context("forkserver")  # the imports are done once
AHEAD = 4  # parts from which the next victim is drawn
Values = Callable[[Path], dict[str, Any]]
LIMIT = 300.0  # seconds after which a process that says nothing counts as stuck


class Trial:
    """One root, killed again and again until its run ends."""

    def __init__(self, folder: Path, values: Values) -> None:
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
    def __init__(
        self,
        seed: int,
        seconds: dict[str, float],
        touches: dict[str, int],
        struck: Counter[tuple[str, str]],
    ) -> None:
        self.random = random.Random(seed)
        self.seconds, self.touches, self.parts = seconds, touches, list(seconds)
        self.struck = struck

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
            self.struck[now.split()[-1], how] += 1
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
        self.kills = self.flows = self.runs = self.damaged = 0
        self.struck: Counter[tuple[str, str]] = Counter()
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

    def table(self) -> str:
        """Where it struck, then what was found."""
        parts = dict.fromkeys(part for part, _ in sorted(self.struck))
        ways = dict.fromkeys(how for _, how in sorted(self.struck))
        lines = [f"| kills in | {' | '.join(ways)} |", "|---|" + "---:|" * len(ways)]
        lines += [
            f"| {part} | " + " | ".join(f"{self.struck[part, how]}" for how in ways) + " |"
            for part in parts
        ]
        return "\n".join(lines) + (
            f"\n\n{self.kills + self.flows} kills, {self.runs} runs ended; damaged after a kill: "
            f"{self.damaged}; different at an end: {len(self.wrong)}; left lying: {dict(self.left)}"
        )


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


def through_flows(
    trial: Trial,
    chance: random.Random,
    seconds: dict[str, float],
    count: Count,
    most: int,
    environment: dict[str, str],
) -> None:
    """The same with `distill` and its training programs, until it ends by itself."""
    reached = 0
    while count.flows < most and reached < len(seconds):
        stage, whom = killed_flows.draw(chance, reached)
        flow = killed_flows.Flow(trial.run, Path(trial.log), environment)
        if flow.follow(stage, chance.uniform(0, seconds[stage]), whom) == 0:
            return
        count.flows, now = count.flows + 1, list(flow.began)[-1]
        damaged = trial.ask(killed_run.check)
        count.damaged += len(damaged)
        print(f"{count.flows}: the {whom} in {now}; {damaged or 'nothing damaged'}", flush=True)
        count.struck[f"{now}, a flow", whom] += 1
        reached = killed_flows.STAGES.index(now) + (chance.random() < 0.5)
    if killed_flows.Flow(trial.run, Path(trial.log), environment).follow():
        raise SystemExit(f"a resumed flow failed:\n{Path(trial.log).read_text()[-3000:]}")


def flows(
    folder: Path, values: Values, chance: random.Random, count: Count, most: int, reference: Any
) -> None:
    server = OwnServer(folder / "prefect")
    try:
        server.start_server()
        whole = Trial(folder / "flow-whole", values)
        flow = killed_flows.Flow(whole.run, Path(whole.log), server.environment)
        if flow.follow():
            raise SystemExit(f"the flow failed:\n{Path(whole.log).read_text()[-3000:]}")
        seconds = killed_flows.seconds_of(flow.began, time.monotonic())
        count.end(whole, reference)
        while count.flows < most:
            trial = Trial(folder / f"flow-{count.runs}", values)
            through_flows(trial, chance, seconds, count, most, server.environment)
            count.end(trial, reference)
    finally:
        server.close()


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
    killer = Killer(args.seed, *whole.whole(), count.struck)
    reference = whole.ask(killed_run.look)
    while count.kills < args.kills - args.flows:
        trial = Trial(folder / f"run-{count.runs}", debug_values)
        through(killer, trial, count, args.kills - args.flows)
        count.end(trial, reference)
    if args.flows:
        flows(folder, debug_values, killer.random, count, args.flows, reference)
    print(count.table(), f"\n{time.monotonic() - began:.0f} s, seed {args.seed}", flush=True)
    sys.exit(bool(count.wrong or count.damaged))


if __name__ == "__main__":
    main()
