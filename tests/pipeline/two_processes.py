"""Trains a small student by torchrun, for `test_parallel.py`: `two_processes.py OUT JOBS`.

JOBS is JSON, a list of jobs: `name` of its folder, and optionally values of `LoopConfig`, `steps`,
`nan` (rank and step of a loss that is not finite), `kill` (rank and step at which a process kills
itself), `blind` (nothing is visible), `model` (values of `ModelConfig`). Each leaves
`starts` (the steps it began at), `weights.pt` and `rows-<rank>.json`.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lightgen_model.config import debug
from lightgen_model.model import LightGen
from pipeline.batches import FeatureBatches, TableRows
from pipeline.config import (
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    StudentConfig,
    TrainingPhase,
)
from pipeline.parallel import recompute_activations
from pipeline.pretraining_step import PretrainingStep
from pipeline.states import saved
from pipeline.training import Part, Schedule, fit
from tests.pipeline.test_batches import text_of

STEPS = 6
CONFIG = StudentConfig(
    model=debug(),
    masking=MaskingConfig(distribution="uniform", min_ratio=0.0, per_sample=True),
    phases=(
        TrainingPhase(
            image_size=64, steps=1, batch_size=8, optimizer=OptimizerConfig(learning_rate=1e-3)
        ),
    ),
)


def batches() -> FeatureBatches:
    generator = torch.Generator().manual_seed(0)
    moments = torch.randn(12 * 32 * 8 * 8, generator=generator).half().numpy()
    table = pa.table(
        {
            "caption_id": ["a", "b"] * 6,
            "moments": pa.FixedSizeListArray.from_arrays(pa.array(moments), 32 * 8 * 8),
        }
    )
    text = text_of({"zero": 1, "a": 3, "b": 7}, width=128)  # all-zero text would swamp the gradient
    values = {"cells": 8, "scale": 1.0, "shift": 0.0, "batch_size": 8, "seed": 1}
    return FeatureBatches.load(TableRows(table), text, **values)  # type: ignore[arg-type]


def network() -> LightGen:
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():  # a last layer of zeros would hide everything before it
        model.head.net.final.linear.weight.fill_(0.01)
    return model


class Watched:
    """The step of pre-training; notes which rows it took."""

    def __init__(self, job: Mapping[str, Any], config: StudentConfig, rank: int) -> None:
        self.job, self.rank, self.rows = job, rank, dict[int, list[float]]()
        self.step = PretrainingStep(config, batches(), 3)
        original = self.step.batches.take

        def take(step: int, part: Any, generators: Any) -> tuple[Tensor, Tensor, Tensor]:
            taken = original(step, part, generators)
            self.rows.setdefault(step, []).extend(taken[0][:, 0, 0, 0].tolist())
            return taken

        object.__setattr__(self.step.batches, "take", take)

    def __call__(
        self, model: nn.Module, step: int, part: Part
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        if self.job.get("kill") == [self.rank, step]:
            os.kill(os.getpid(), signal.SIGKILL)
        loss, extras = self.step(model, step, part)
        return (loss * torch.nan if self.job.get("nan") == [self.rank, step] else loss), extras


def run(job: Mapping[str, Any], out: Path, accelerator: Accelerator) -> None:
    rank, folder = accelerator.process_index, out / job["name"]
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=2, kind=job.get("kind", "adamw"))
    phase = TrainingPhase(image_size=64, steps=STEPS, batch_size=8, optimizer=optimizer)
    shape = CONFIG.model.model_copy(update=job.get("model", {}))
    hidden = MaskingConfig(distribution="uniform", min_ratio=1.0)
    masking = hidden if job.get("blind") else CONFIG.masking
    changes = {"model": shape, "phases": (phase,), "masking": masking}
    config = CONFIG.model_copy(update=changes)
    model = network() if shape == debug() else LightGen(shape)
    loop = LoopConfig(
        **{"num_processes": 2, "log_every": 1, "checkpoint_every": 2, **job.get("loop", {})}
    )
    if loop.checkpoint_activations:
        recompute_activations(model)
    step = Watched(job, config, rank)
    position = step.step.batches.position
    schedule = Schedule(job.get("steps", STEPS), 8, seed=1, position=position)
    if accelerator.is_main_process:
        folder.mkdir(exist_ok=True)
        newest = [path.stem.removeprefix("state-") for path in saved(folder)[-1:]]
        with (folder / "starts").open("a") as file:
            file.write(f"{int((newest or ['0'])[0])}\n")
    average = fit(model, step, optimizer, loop, schedule, folder, accelerator=accelerator)
    (folder / f"rows-{rank}.json").write_text(json.dumps(step.rows))
    if accelerator.is_main_process:
        torch.save(average, folder / "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    everywhere = Accelerator(cpu=True)
    for each in json.loads(sys.argv[2]):
        run(each, Path(sys.argv[1]), everywhere)
    everywhere.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    # All is written. Threads of gloo have aborted a process while its interpreter ended (once in
    # seven runs on a crowded machine: "terminate called without an active exception").
    sys.stdout.flush()
    os._exit(0)
