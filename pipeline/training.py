"""The one training loop, for the student and for its alignment.

In:    a model, batches as a pure function of the step, a loss, an `OptimizerConfig`.
Out:   a folder with `log.jsonl` and `state-<step>.pt` while it runs; the averaged weights at the
       end.
Rerun: goes on from the newest state. Whatever is random in a step is a function of (seed, step), so
       the state is weights, average, optimizer and step, and a resumed run ends bit for bit where
       an uninterrupted one does (same machine, same processes and threads); with another number of
       processes it ends there to rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline.config import LoopConfig, OptimizerConfig
from pipeline.optimizers import build_optimizers, learning_rate, take_step
from pipeline.parallel import (
    Weights,
    clip_gradients,
    distribute,
    gathered,
    gradients_stay,
    shared_out,
    update_average,
)
from pipeline.records import Pace, Records
from pipeline.states import (
    Position,
    TrainingState,
    check_position,
    drop_old,
    drop_unfinished,
    hand_out,
    saved,
)
from pipeline.stopping import LEFT, Ending, hearing


@dataclass(frozen=True)
class Part:
    """One of `count` equal, contiguous parts of a global batch."""

    index: int = 0
    count: int = 1

    def of(self, num_rows: int) -> range:
        """Its rows; ValueError for a batch that the parts do not divide."""
        size, rest = divmod(num_rows, self.count)
        if rest:
            raise ValueError(
                f"a batch of {num_rows} does not divide by {self.count} (processes x accumulation)"
            )
        return range(self.index * size, (self.index + 1) * size)


class Step(Protocol):
    """The loss of a part of one step, and what to log beside it.

    The mean of the parts' losses, and of what is logged, is that of the whole batch.
    """

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]: ...


def nowhere(step: int) -> Position:
    return {}


@dataclass(frozen=True)
class Schedule:
    """How long to train, on how much, and when to stop for a look."""

    steps: int
    samples_per_step: int
    watch_every: int = 0  # 0: never
    seed: int = 0
    flops_per_sample: float | None = None
    position: Callable[[int], Position] = nowhere  # where the data is before a step
    # Given what is logged of a step: a reason to end there, or "". The same for all processes.
    stop: Callable[[Mapping[str, float]], str] = lambda row: ""
    until: int | None = None  # end after so many of `steps`, whose schedule stays

    @property
    def last(self) -> int:
        return self.steps if self.until is None else self.until


def fit(
    model: nn.Module,
    step_loss: Step,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    schedule: Schedule,
    folder: Path,
    *,
    accelerator: Accelerator,
    compile_model: bool = False,
    average: Weights | None = None,
    watch: Callable[[int, Weights], None] | None = None,
    label: str = "train",
) -> Weights:
    """Train `model` in place to `schedule.last`, or to where `schedule.stop` ends it; returns the
    averaged weights (EMA), float32.

    `average` carries the EMA of an earlier phase on; without it the average starts as a copy.
    `watch` may be given to the main process alone; `schedule.watch_every` is the same for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        drop_unfinished(folder)
    hand_out(folder, accelerator)
    called = distribute(model, loop.strategy, accelerator)
    state = _new_state(model, optimizer, average, accelerator.device)
    first = _resume(state, folder, schedule.position, accelerator.device)
    accelerator.wait_for_everyone()
    if compile_model:
        called = torch.compile(called)  # type: ignore[assignment]
    if schedule.watch_every and first == 0:
        _look(0, state, watch)
    pace = _pace(schedule, loop, accelerator.num_processes)
    records = Records(folder, schedule.steps, first, pace, label, accelerator)
    if first:
        records.say(f"goes on after step {first} of {schedule.steps}")
    training = Training(step_loss, optimizer, loop, schedule, accelerator, called, state)

    with hearing() as ending:
        _go_on(training, range(first, schedule.last), records, folder, watch, ending)
    records.bar.close()
    return gathered(state.average)


def _go_on(
    training: "Training",
    steps: range,
    records: Records,
    folder: Path,
    watch: Callable[[int, Weights], None] | None,
    ending: Ending,
) -> None:
    """Every step that is left, with its records, looks and states; SystemExit when told to end."""
    loop, schedule, state = training.loop, training.schedule, training.state

    def at(done: int, every: int) -> bool:
        """Is this the moment for what happens `every` steps and at the end?"""
        return every > 0 and (done % every == 0 or done == schedule.last)

    for step in steps:
        values, bad = training.step(step)
        records.remember(values, bad)
        done, leaves = step + 1, ending.asked()
        saves, logs = leaves or at(done, loop.checkpoint_every), at(done, loop.log_every)
        if saves or logs or at(done, loop.max_skipped or 1):
            check_skips(state.skips, loop.max_skipped, folder, step)
        if logs:
            rate = learning_rate(training.optimizer, step, schedule.steps)
            row = records.write(done, {"lr": rate, "skipped": int(state.skips[2])})
            reason = schedule.stop(row)
            if reason:
                # No state is saved: a run that dies before its end comes here once more.
                records.say(f"stopped after step {done} of {schedule.steps}: {reason}")
                break
        with records.paused():
            if at(done, schedule.watch_every):
                _look(done, state, watch)
            if saves:
                state.save(folder, done, schedule.position(done), training.accelerator)
                if training.accelerator.is_main_process:
                    drop_old(folder, loop.keep_last, loop.keep_every)
        if leaves:
            records.say(f"told to end: step {done} of {schedule.steps} is saved")
            raise SystemExit(LEFT)


def _new_state(
    model: nn.Module, optimizer: OptimizerConfig, average: Weights | None, device: torch.device
) -> TrainingState:
    return TrainingState(
        model,
        build_optimizers(model, optimizer),
        shared_out(average or gathered(model.state_dict()), model),
        torch.zeros(3, dtype=torch.int64, device=device),
    )


def _look(done: int, state: TrainingState, watch: Callable[[int, Weights], None] | None) -> None:
    """Every process gives its shards; those with a `watch`, the main one, use the whole."""
    average = gathered(state.average)
    if watch:
        watch(done, average)


def _resume(
    state: TrainingState, folder: Path, position: Callable[[int], Position], device: torch.device
) -> int:
    """Load the newest state if there is one; the step to go on from."""
    paths = saved(folder)
    if not paths:
        return 0
    step, then = state.restore(paths[-1], device)
    check_position(paths[-1], then, position(step))
    return step


def _pace(schedule: Schedule, loop: LoopConfig, num_devices: int) -> Pace:
    peak = None if loop.peak_tflops is None else loop.peak_tflops * 1e12 * num_devices
    return Pace(schedule.samples_per_step, schedule.flops_per_sample, peak)


@dataclass(frozen=True)
class Training:
    """One global step on all processes."""

    step_loss: Step
    optimizer: OptimizerConfig
    loop: LoopConfig
    schedule: Schedule
    accelerator: Accelerator
    called: nn.Module
    state: TrainingState

    def step(self, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """Loss, norm and extras of this process, and 1 (float) where the step has no effect."""
        values = self._gradients(step)
        norm = clip_gradients(self.state.model, self.optimizer.max_grad_norm)
        # One process's loss is enough to hold the step back on all of them.
        loss = self.accelerator.reduce(values["loss"], "mean")
        bad = (~torch.isfinite(loss + norm)).float()
        rate = learning_rate(self.optimizer, step, self.schedule.steps)
        take_step(self.state.optimizers, bad, rate)
        update_average(self.state.average, self.state.model, self.optimizer.ema_decay, step)
        count_skip(self.state.skips, bad)
        return {**values, "grad_norm": norm}, bad

    def _gradients(self, step: int) -> dict[str, Tensor]:
        """Forward and backward over this process's parts; mean loss and extras."""
        parts = self.loop.accumulation
        count = self.accelerator.num_processes * parts
        total: dict[str, Tensor] = {}
        for number in range(parts):
            part = Part(self.accelerator.process_index * parts + number, count)
            # Dropout is the one thing that draws from the global generator.
            torch.manual_seed((self.schedule.seed * 1_000_003 + step) * 1009 + part.index)
            with gradients_stay(self.called, number + 1 < parts):
                with self.accelerator.autocast():
                    loss, extras = self.step_loss(self.called, step, part)
                torch.autograd.backward(loss / parts)
            for name, value in {"loss": loss, **extras}.items():
                total[name] = total.get(name, 0) + value.detach() / parts
        return total


def count_skip(skips: Tensor, bad: Tensor) -> None:
    """Count a step in place: skipped in a row, most in a row, in all. Nothing waits for it."""
    now = bad.to(skips.dtype)
    skips[0] = (skips[0] + now) * now
    skips[1] = torch.maximum(skips[1], skips[0])
    skips[2] += now


def check_skips(skips: Tensor, most: int, folder: Path, step: int) -> None:
    """ValueError when more steps in a row than allowed had no finite loss and gradient."""
    longest = int(skips[1])
    if longest > most:
        good = saved(folder)
        where = f"{good[-1]} holds the last good state" if good else "no state was saved before"
        raise ValueError(
            f"{longest} steps in a row up to step {step} had a loss or gradient that is not "
            f"finite (max_skipped: {most}); {where}: lower the learning rate or use float32"
        )
