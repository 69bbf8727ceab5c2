"""The one training loop, for the student and for its alignment.

In:    a model, batches as a pure function of the step, a loss, an `OptimizerConfig`.
Out:   a folder with `log.jsonl` and `state.pt` while it runs; the averaged weights at the end.
Rerun: goes on from `state.pt`. Whatever is random in a step is a function of (seed, step), so the
       state is weights, average, optimizer and step, and a resumed run ends bit for bit where an
       uninterrupted one does (same machine, same number of threads).
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from lightgen_model.checkpoint import publish
from pipeline.checkpoints import Log
from pipeline.config import OptimizerConfig

STATE, LOG = "state.pt", "log.jsonl"

Weights = dict[str, Tensor]


class Step(Protocol):
    """The loss of one step and what to log beside it."""

    def __call__(self, model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Tensor]]: ...


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to stop for a look."""

    steps: int
    log_every: int
    checkpoint_every: int
    watch_every: int = 0  # 0: never
    seed: int = 0

    def at(self, done: int, every: int) -> bool:
        """Is this the moment for what happens `every` steps and at the end?"""
        return every > 0 and (done % every == 0 or done == self.steps)


def fit(
    model: nn.Module,
    step_loss: Step,
    optimizer_config: OptimizerConfig,
    schedule: Schedule,
    folder: Path,
    *,
    accelerator: Accelerator,
    samples_per_step: int,
    compile_model: bool = False,
    average: Weights | None = None,
    watch: Callable[[int, Weights], None] | None = None,
    label: str = "train",
) -> Weights:
    """Train `model` in place to `schedule.steps`; returns the averaged weights (EMA), float32.

    `average` carries the EMA of an earlier phase on; without it the average starts as a copy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        decay_groups(model, optimizer_config.weight_decay),
        lr=optimizer_config.learning_rate,
        betas=optimizer_config.betas,
        fused=True,
    )
    plain = model
    model, optimizer = accelerator.prepare(model, optimizer)
    average = {
        name: (average or plain.state_dict())[name].detach().clone().to(value)
        for name, value in plain.state_dict().items()
    }
    first = restore(folder, plain, optimizer, average, accelerator.device)
    called: nn.Module = torch.compile(model) if compile_model else model  # type: ignore[assignment]
    if watch and schedule.watch_every and first == 0:
        watch(0, average)
    records = Records(schedule, folder, first, samples_per_step, label, accelerator.is_main_process)
    for step in range(first, schedule.steps):
        # Dropout is the one thing that draws from the global generator.
        torch.manual_seed(schedule.seed * 1_000_003 + step)
        rate = learning_rate(optimizer_config, step, schedule.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with accelerator.autocast():
            loss, extras = step_loss(called, step)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), optimizer_config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update_average(average, plain, optimizer_config.ema_decay, step)
        records.after(step, loss, {"lr": rate, "grad_norm": norm, **extras})
        if watch and schedule.at(step + 1, schedule.watch_every):
            watch(step + 1, average)
        if accelerator.is_main_process and (step + 1) % schedule.checkpoint_every == 0:
            check_finite(float(loss.detach()), step, folder)
            save_state(folder, plain, optimizer, average, step + 1)
    records.bar.close()
    if accelerator.is_main_process:
        save_state(folder, plain, optimizer, average, schedule.steps)
    return average


class Records:
    """A row of `log.jsonl` every few steps, the same row on stdout for the flow, and a bar."""

    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        first: int,
        samples_per_step: int,
        label: str,
        is_main_process: bool,
    ) -> None:
        self.schedule, self.folder, self.first = schedule, folder, first
        self.samples_per_step, self.is_main_process = samples_per_step, is_main_process
        self.log = Log(folder / LOG, first)
        self.started = time.monotonic()
        self.bar = tqdm(total=schedule.steps, initial=first, desc=label, unit="step", disable=None)

    def after(self, step: int, loss: Tensor, extras: Mapping[str, Tensor | float]) -> None:
        """Tell of a step that is done; ValueError when its loss is not finite."""
        done = step + 1
        self.bar.update()
        if self.schedule.at(done, self.schedule.log_every):
            row = {"step": done, "steps": self.schedule.steps, "loss": float(loss.detach())}
            check_finite(row["loss"], step, self.folder)
            row |= {name: float(value) for name, value in extras.items()}
            speed = (done - self.first) * self.samples_per_step
            row["samples_per_second"] = round(speed / (time.monotonic() - self.started), 1)
            if self.is_main_process:
                self.log.write(row)
                print(json.dumps(row), flush=True)  # the flow reads this
            self.bar.set_postfix(loss=f"{row['loss']:.4f}")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """No decay for vectors, biases and the head (lightgen.md 2.2)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        free = parameter.ndim < 2 or name.endswith(".bias") or name.startswith("head.")
        (plain if free else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Linear warm-up, then constant or cosine to zero. A pure function of the step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return config.learning_rate
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_average(average: Weights, model: nn.Module, decay: float, step: int) -> None:
    """EMA, warmed up so that a short run is not an average of its first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    current = model.state_dict()
    torch._foreach_lerp_(list(average.values()), [current[name] for name in average], 1 - decay)


def check_finite(loss: float, step: int, folder: Path) -> None:
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss became {loss} at step {step}; {folder / STATE} holds the last good state: "
            "lower the learning rate or use float32"
        )


def save_state(folder: Path, model: nn.Module, optimizer: Any, average: Weights, step: int) -> None:
    part = folder / f".{STATE}.part"
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, part)
    publish(part, folder / STATE)


def restore(
    folder: Path, model: nn.Module, optimizer: Any, average: Weights, device: torch.device
) -> int:
    """Load `state.pt` if there is one; returns the step to go on from."""
    path = folder / STATE
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to start this anew") from error
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"])
