"""The share of `tests/benchmarks/kills.py` that strikes real flows and their training programs.

Each start is `distill` in a process of its own beside a Prefect server; its log says which stage
begins. After a random time in a stage drawn at random, `kill -9` of the flow's process, or of the
training program below it, which the flow then reports as failed.
"""

import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from pipeline.preflight import SECTIONS
from tests.flows.own_server import ROOT

BEGINS = re.compile(r"Beginning (?:sub)?flow run '.*' for flow '(\w+)'")
STAGES = list(SECTIONS)
AHEAD = 3


class Flow:
    """One start of `distill`; `began` has the stages that it told of, and when."""

    def __init__(self, run: str, log: Path, environment: Mapping[str, str]) -> None:
        code = f"from flows.distillation import distill; distill(run={run!r})"
        self.process = psutil.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log, self.began = log, dict[str, float]()

    def follow(self, stage: str = "", wait: float = 0.0, whom: str = "flow") -> int:
        """Read what it says to its end; strike `wait` seconds after the stage began."""
        timer = threading.Timer(wait, self.strike, [whom])
        with self.log.open("a") as file:
            for line in self.process.stdout:
                file.write(line)
                found = BEGINS.search(line)
                if found:
                    self.began[found[1]] = time.monotonic()
                    if found[1] == stage:
                        timer.start()
        code: int = self.process.wait()
        timer.cancel()
        return code

    def strike(self, whom: str) -> None:
        below = [
            each
            for each in self.process.children(recursive=True)
            if whom == "training" and "pipeline." in " ".join(each.cmdline())
        ]
        (below or [self.process])[0].kill()


def seconds_of(began: Mapping[str, float], end: float) -> dict[str, float]:
    times = [began[stage] for stage in STAGES] + [end]
    return {stage: times[n + 1] - times[n] for n, stage in enumerate(STAGES)}


def draw(chance: random.Random, reached: int) -> tuple[str, str]:
    """A stage from here on, trainings three times as often, and who dies."""
    window = STAGES[reached : reached + AHEAD]
    weights = [3 if stage in ("student", "dpo") else 1 for stage in window]
    (stage,) = chance.choices(window, weights)
    whom = "training" if stage in ("student", "dpo") and chance.random() < 0.5 else "flow"
    return stage, whom
