"""The program that trains the student: `python -m pipeline.pretraining --config F --upstream F`.

In:    the run as YAML, and the manifests of the stages before as JSON.
Out:   the checkpoint folder that `pipeline.student` describes.
Rerun: goes on from the last saved step of the phase it was in, bit for bit.

Flips are never applied: a mirrored picture makes "left of" a lie (lightgen.md 2.3).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from lightgen_model.autoencoder import Autoencoder
from lightgen_model.flops import training_flops
from lightgen_model.model import LightGen
from lightgen_model.unmasking import expected_ratio
from pipeline import student
from pipeline.batches import FeatureBatches, TableRows, TextStates
from pipeline.checkpoints import TrainingFolder
from pipeline.completeness import require_features
from pipeline.config import LoopConfig, RunConfig, StudentConfig, TrainingPhase, load_run
from pipeline.disk import DiskRefused, writing
from pipeline.emphasis import emphasis_of
from pipeline.feature_tables import alignment_of, text_columns
from pipeline.parallel import Weights, gathered, recompute_activations
from pipeline.prefetch import prefetched
from pipeline.pretraining_step import PretrainingStep
from pipeline.records import trackers
from pipeline.roots import bring, near, root_of
from pipeline.siblings import go_on_from_alike
from pipeline.starting import origins_of, save_weights, start_from
from pipeline.stopping import alone
from pipeline.subsets import subset_of
from pipeline.tables import Manifest
from pipeline.training import Schedule, fit
from pipeline.watching import Watcher


def train_student(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    """Every phase in turn; the next one starts from the weights and the average of the last."""
    values = config.student
    assert values is not None
    torch.set_float32_matmul_precision(values.matmul_precision)
    place = student.folder(config, upstream)
    bring(place.path)
    accelerator = build_accelerator(config, values.precision, values, place)
    if accelerator.is_main_process:
        require_features(config, upstream)
    model = LightGen(values.model).init_weights(torch.Generator().manual_seed(values.seed))
    average = start_from(Path(values.start), model) if values.start else None
    about = {"stage": "student", "features": upstream["features"].content, "run": config.name}
    about |= origins_of(config)
    if accelerator.is_main_process:
        save_weights(place.path / student.UNTRAINED, values.model, model.state_dict(), about)
    if values.checkpoint_activations:
        recompute_activations(model)
    watcher = None
    if accelerator.is_main_process and config.evaluation:
        watcher = Watcher.build(config, place.path, accelerator.device)
    data = PhaseData(config, upstream)
    seen, before = 0, 0
    for index, (phase, end) in enumerate(zip(values.phases, values.ends(), strict=False)):
        batches, seed = data.batches(index, phase), values.seed * 101 + index
        step = PretrainingStep(values, batches, seed, before)
        schedule = Schedule(
            phase.steps,
            phase.batch_size,
            values.sample_every if config.evaluation else 0,
            seed,
            flops_of(values, phase),
            batches.position,
            until=end,
        )
        folder = place.path / student.phase_name(index, phase.image_size)
        if accelerator.is_main_process:
            go_on_from_alike(place, folder.name, end, seen, phase.batch_size)
        accelerator.wait_for_everyone()
        with prefetched(step.prepare, step.expect, values, end, accelerator) as step.ready:
            average = fit(
                model,
                step,
                phase.optimizer,
                values,
                schedule,
                folder,
                accelerator=accelerator,
                compile_model=values.compile,
                average=average,
                watch=partial(look, watcher, phase, seen) if watcher else None,
                label=f"student {phase.image_size} px",
            )
        seen, before = seen + phase.steps * phase.batch_size, before + phase.steps
    assert average is not None
    raw = gathered(model.state_dict())
    if accelerator.is_main_process:
        save_weights(place.final, values.model, average, about, raw)
        place.finish(config)
    accelerator.end_training()


def look(watcher: Watcher, phase: TrainingPhase, before: int, step: int, average: Weights) -> None:
    """The start of a later phase was seen at the end of the one before."""
    if step or not before:
        watcher.look(before + step * phase.batch_size, phase.image_size, average)


class PhaseData:
    """Opens what each phase is trained on; text is shared by all of them."""

    def __init__(self, config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
        assert config.student is not None and config.features is not None
        self.values, self.root = config.student, root_of(config.root)
        self.snapshots = upstream["features"].snapshots
        self.latents, columns = config.features.latents, text_columns(config.features)
        gib = self.values.table_memory_gib
        text = TableRows.open(self.root, self.snapshots["text"], columns, gib)
        self.text = TextStates(text, pinned=config.device == "cuda")
        self.text.require_width(self.values.model.text_width)
        features = config.features
        autoencoder = Autoencoder.load(
            features.autoencoder, features.autoencoder_revision, features.autoencoder_subfolder
        )
        self.scale, self.shift = autoencoder.scale, autoencoder.shift
        self.kept = subset_of(config, upstream)
        self.emphasis = emphasis_of(config, upstream, self.kept)

    def batches(self, index: int, phase: TrainingPhase) -> FeatureBatches:
        snapshot = self.snapshots[f"features_{phase.image_size}"]
        columns, gib = ["image_id", "caption_id", self.latents], self.values.table_memory_gib
        repa, alignment = self.values.model.repa, None
        if repa:
            seen = self.snapshots[alignment_of(phase.image_size)]
            alignment = TableRows.open(self.root, seen, ["image_id", "alignment"], gib)
        return FeatureBatches.load(
            TableRows.open(self.root, snapshot, columns, gib),
            self.text,
            cells=phase.image_size // self.values.model.latent_stride,
            scale=self.scale,
            shift=self.shift,
            batch_size=phase.batch_size,
            seed=self.values.seed + index,
            alignment=alignment,
            alignment_width=repa.width if repa else 0,
            buckets=self.values.text_buckets,
            kept=self.kept,
            emphasis=self.emphasis,
        )


def build_accelerator(
    config: RunConfig, precision: str, loop: LoopConfig, place: TrainingFolder
) -> Accelerator:
    """Knows the processes, the device and the trackers; every wrong value is found here."""
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision="bf16" if precision == "bfloat16" else "no",
        log_with=trackers(loop.tracker) or None,
        project_dir=place.path / "tracking",
    )
    accelerator.init_trackers(place.stage)
    return accelerator


def flops_of(values: StudentConfig, phase: TrainingPhase) -> float:
    """Work of a training sample, for MFU: text at its full length, what masks leave on average."""
    masking = values.masking
    ratio = expected_ratio(masking.distribution, masking.min_ratio)
    return training_flops(values.model, values.model.grid(phase.image_size) ** 2, ratio)


def read_upstream(path: Path) -> dict[str, Manifest]:
    values = json.loads(path.read_text(encoding="utf-8"))
    return {stage: Manifest.from_json(manifest) for stage, manifest in values.items()}


def arguments(description: str) -> tuple[RunConfig, dict[str, Manifest]]:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="the run, a YAML file")
    parser.add_argument("--upstream", type=Path, required=True, help="manifests, a JSON file")
    args = parser.parse_args()
    return load_run(args.config), read_upstream(args.upstream)


def program(
    train: Callable[[RunConfig, Mapping[str, Manifest]], None],
    folder: Callable[[RunConfig, Mapping[str, Manifest]], TrainingFolder],
    description: str,
) -> None:
    """Run a training from the command line; a disk that refuses it ends it with one sentence."""
    config, upstream = arguments(description)
    first = os.environ.get("RANK", "0") == "0"
    try:
        with (
            writing(near(root_of(config.root))),
            alone(folder(config, upstream).path) if first else nullcontext(),
        ):
            train(config, upstream)
    except DiskRefused as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    program(train_student, student.folder, "Train the student.")
