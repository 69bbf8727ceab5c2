"""What a training tells while it runs: a row every few steps, in four places.

In:    a step that is done, its loss and what belongs to it, as tensors on the device.
Out:   rows of `log.jsonl`; the same rows on stdout, which the flow reads; accelerate's trackers; a
       bar. Between rows nothing waits for the device.
Rerun: rows beyond the step it goes on from are dropped and made again.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from pipeline.checkpoints import Log

LOG = "log.jsonl"
TRACKING = "tensorboard"


@dataclass(frozen=True)
class Pace:
    """What a second is worth: samples, and where both are known, a share of the device's peak."""

    samples_per_step: int
    flops_per_sample: float | None = None  # of one forward and backward pass
    peak_flops: float | None = None  # a second, of all devices

    def told(self, steps: int, seconds: float) -> dict[str, float]:
        per_second = steps * self.samples_per_step / max(seconds, 1e-9)
        row = {"samples_per_second": round(per_second, 1)}
        if self.flops_per_sample and self.peak_flops:
            row["mfu"] = round(per_second * self.flops_per_sample / self.peak_flops, 4)
        return row


class Records:
    def __init__(
        self,
        folder: Path,
        steps: int,
        first: int,
        pace: Pace,
        label: str,
        accelerator: Accelerator,
    ) -> None:
        self.steps, self.pace, self.name = steps, pace, folder.name
        self.accelerator, self.is_main = accelerator, accelerator.is_main_process
        self.log = Log(folder / LOG, first) if self.is_main else None
        self.last, self.started = first, time.monotonic()
        self.values: dict[str, Tensor] = {}
        hidden = None if self.is_main else True
        self.bar = tqdm(total=steps, initial=first, desc=label, unit="step", disable=hidden)

    def remember(self, values: Mapping[str, Tensor], bad: Tensor) -> None:
        """Keep the values of the last step that counted, of what this step has."""
        self.bar.update()
        before, self.values = self.values, {}
        for name, value in values.items():
            now = value.detach().float()
            kept = before.get(name, torch.full_like(now, math.nan))
            self.values[name] = torch.where(bad > 0, kept, now)

    def write(self, step: int, known: Mapping[str, float]) -> Mapping[str, float]:
        """Tell of the step, the same on every process, and all must call. Waits for the device."""
        means = self.accelerator.reduce(torch.stack(list(self.values.values())), "mean").tolist()
        row: dict[str, float] = {"step": step, "steps": self.steps}
        row |= {**dict(zip(self.values, means, strict=True)), **known}
        row |= self.pace.told(step - self.last, time.monotonic() - self.started)
        self.last, self.started = step, time.monotonic()
        if not math.isfinite(row["loss"]) or self.log is None:
            return row
        self.log.write(row)
        print(json.dumps(row), flush=True)  # the flow reads this
        told = {f"{self.name}/{name}": value for name, value in row.items() if "step" not in name}
        self.accelerator.log(told, step=step)
        self.bar.set_postfix(loss=f"{row['loss']:.4f}")
        return row

    def say(self, sentence: str) -> None:
        """A line for the flow's log."""
        if self.is_main:
            print(sentence, flush=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not training: a look at the student, a state written."""
        began = time.monotonic()
        yield
        self.started += time.monotonic() - began


def trackers(choice: str) -> list[str]:
    """accelerate's names of the trackers to use; ValueError for one that is not installed."""
    installed = find_spec(TRACKING) is not None
    if choice == TRACKING and not installed:
        raise ValueError(
            f"tracker: {TRACKING} is not installed; install the extra 'tracking', or choose 'none'"
        )
    return [TRACKING] if installed and choice != "none" else []
