"""Resumable states of a training: files `state-<step>.pt`, each whole or not there.

In:    a model, its optimizers and average, and the data's position at a step.
Out:   one file a saved step and its checksum beside it. Nothing in it belongs to a process: it goes
       on with another number of processes or another strategy.
Rerun: goes on from the newest file; a damaged one, or one of other data, is a `ValueError`.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from lightgen_model.checkpoint import publish
from pipeline.disk import writing
from pipeline.parallel import Weights, gathered, local, shared_out
from pipeline.roots import drop, far, follow, send, training_of
from pipeline.seals import damage_of, sum_of, write_sum

logger = logging.getLogger(__name__)
Position = Mapping[str, object]  # where the data is, in plain values


@dataclass
class TrainingState:
    """What a step changes. `skips` (3,) counts steps without effect: in a row, most, in all."""

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    average: Weights
    skips: Tensor

    def save(
        self, folder: Path, step: int, position: Position, accelerator: Accelerator
    ) -> Path | None:
        """Write the state after `step` steps. Every process must call; the main one writes."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizers = list(self.optimizers)
        content = {
            "step": step,
            "model": get_model_state_dict(self.model, options=options),
            "average": gathered(self.average),
            "optimizer": get_optimizer_state_dict(self.model, optimizers, options=options),
            "skips": self.skips,
            "position": dict(position),
        }
        path = folder / name_of(step)
        if accelerator.is_main_process:
            part = folder / f".{path.name}.part"
            with ExitStack() as stack, writing(folder):
                stack.callback(part.unlink, missing_ok=True)
                torch.save(content, part)
                # The sum before the file: a state that has its name has its sum.
                write_sum(path, part)
                publish(part, path)
            send(training_of(folder))
        return path

    def restore(self, path: Path, device: torch.device) -> tuple[int, Position]:
        """Load a state in place; its step and its data's position."""
        if damage := damage_of(path):
            raise ValueError(
                f"{path} is damaged (it {damage}): delete it to go on from the state before it, "
                "or anew where there is none"
            )
        try:
            # Mapped for a GPU: the processes of a machine then share one copy in memory.
            state = torch.load(
                path, map_location="cpu", weights_only=True, mmap=device.type != "cpu"
            )
        except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it to go on from the state before it, "
                "or anew where there is none"
            ) from error
        options = StateDictOptions(full_state_dict=True)
        optimizers = list(self.optimizers)
        set_optimizer_state_dict(self.model, optimizers, state["optimizer"], options=options)
        set_model_state_dict(self.model, state["model"], options=options)
        for name, value in shared_out(state["average"], self.model).items():
            local(self.average[name]).copy_(local(value))
        self.skips.copy_(state["skips"])
        return int(state["step"]), state["position"]


def name_of(step: int) -> str:
    return f"state-{step:09d}.pt"


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def saved(folder: Path) -> list[Path]:
    """Whole states, oldest first."""
    return sorted(folder.glob("state-*.pt"))


def drop_unfinished(folder: Path) -> None:
    """Delete what a kill left of states on their way, each as large as a state."""
    for part in folder.glob(".state-*.part"):
        part.unlink()


def hand_out(folder: Path, accelerator: Accelerator) -> None:
    """The main process's states for all: beside a bucket every machine has a folder of its own.

    A machine that died may have kept there a state that never reached the bucket.
    """
    training = training_of(folder)
    if accelerator.num_processes == 1 or far(training) is None:
        return
    if accelerator.is_main_process:
        send(training)
    accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        follow(training)


def drop_old(folder: Path, keep_last: int, keep_every: int) -> None:
    """Delete states that are neither among the newest nor at a step to keep for good."""
    for path in saved(folder)[:-keep_last]:
        if not keep_every or step_of(path) % keep_every:
            drop(path)
            drop(sum_of(path))


def check_position(path: Path, then: Position, now: Position) -> None:
    """ValueError where a state was made with other data than what would follow it.

    A table made again has another number and the same content; that it has the same content is what
    counts. Of a state from before contents were noted only the number is known.
    """
    by_content = "content" in then or "content" not in now
    ignored = "version" if by_content and "content" in now else "content"
    differing = [
        f"{name} {then.get(name)!r} against {now.get(name)!r}"
        for name in sorted({*then, *now} - {ignored})
        if then.get(name) != now.get(name)
    ]
    if differing:
        older = "" if by_content else "; it is of a time when the number of a version stood for it"
        raise ValueError(
            f"{path} was made with other data ({', '.join(differing)}{older}): give it its own "
            "data back, or delete it to start anew"
        )
    if not by_content:
        logger.info("%s knows its data by the version's number %s", path, then.get("version"))
