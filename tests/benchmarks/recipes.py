"""Recipes against each other: the student of the shapes world, trained from cached features.

    python -m tests.benchmarks.recipes --root artifacts/tiny --steps 600 --variants base,qk_norm

In:    the root of a finished run; its tables are read, nothing is written there.
Out:   a Markdown table, means over seeds: share of correct pictures on held-out prompts by the
       exact detector (mean of the six tasks, that of each seed, and each task), pictures trained a
       second. Trainings lie under --out, each with a checkpoint `final`, which
       `tests.benchmarks.samplers` reads.
Rerun: a variant that is trained is only scored again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from lightgen_model.model import LightGen
from pipeline.batches import TableRows
from pipeline.checkpoints import TrainingFolder, read_rows
from pipeline.config import RunConfig, load_run
from pipeline.parallel import Weights, recompute_activations
from pipeline.pretraining import PhaseData, build_accelerator, flops_of
from pipeline.pretraining_step import PretrainingStep
from pipeline.records import LOG
from pipeline.shapes.grammar import TASKS
from pipeline.starting import origins_of, save_weights
from pipeline.tables import Manifest
from pipeline.training import Schedule, fit
from pipeline.watching import Watcher

MODEL, MASKING, OPTIMIZER = "student.model", "student.masking", "student.phases.0.optimizer"
# Each is the run's own values with these changed.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "ddpm_head": {
        f"{MODEL}.head": {"kind": "ddpm", "depth": 3, "width": 256, "batch_multiplier": 4}
    },
    "qk_norm": {f"{MODEL}.qk_norm": True},
    "text_padding_seen": {f"{MODEL}.attend_padding": True},
    "independent_times": {f"{MODEL}.head.stratified": False},
    "two_noises_a_time": {f"{MODEL}.head.noises_per_time": 2},
    "four_noises_a_time": {f"{MODEL}.head.noises_per_time": 4},
    "time_shift_0": {f"{MODEL}.head.time_shift": 0.0},
    "ratio_a_batch": {f"{MASKING}.per_sample": False},
    "masked_from_0.5": {MASKING: {"distribution": "truncated_normal", "min_ratio": 0.5}},
    "masked_from_0.7": {MASKING: {"distribution": "truncated_normal", "min_ratio": 0.7}},
    "muon": {f"{OPTIMIZER}.kind": "muon"},
    "recompute": {"student.checkpoint_activations": True},
    # Needs a run whose features have `alignment_encoder`; its width is read from the table.
    "repa": {},
}


def manifest_of(root: Path, stage: str) -> Manifest:
    """The newest manifest that the run's flow left."""
    paths = sorted((root / "manifests").glob(f"{stage}-*.json"), key=lambda p: p.stat().st_mtime)
    if not paths:
        raise ValueError(f"{root} holds no manifest of {stage}: finish the run first")
    return Manifest.from_json(json.loads(paths[-1].read_text("utf-8")))


def configured(
    run: str, root: Path, name: str, steps: int, seed: int, features: Manifest
) -> RunConfig:
    changes = {**VARIANTS[name], "root": str(root), "student.phases.0.steps": steps}
    changes |= {"student.tracker": "none", f"{OPTIMIZER}.warmup_steps": max(1, steps // 15)}
    changes["student.seed"] = seed
    if name == "repa":
        changes |= repa_of(root, run, features)
    return load_run(run, changes)


def repa_of(root: Path, run: str, features: Manifest) -> dict[str, Any]:
    config = load_run(run)
    assert config.student
    assert config.features
    size = config.student.phases[0].image_size
    snapshot = features.snapshots.get(f"alignment_{size}")
    if snapshot is None:
        raise ValueError(f"{root} has no table alignment_{size}: set features.alignment_encoder")
    table = TableRows.open(root, snapshot, ["alignment"], 0)
    bits = table.take(torch.zeros(1, dtype=torch.int64).numpy())["alignment"][0].as_py()
    width = len(bits) // 2 // config.student.model.grid(size) ** 2
    return {
        f"{MODEL}.repa": {"width": width, "block": 2, "hidden": 512},
        "features.alignment_encoder": config.features.alignment_encoder or "already encoded",
    }


def train(config: RunConfig, upstream: dict[str, Manifest], place: TrainingFolder) -> Weights:
    values = config.student
    assert values is not None
    accelerator = build_accelerator(config, values.precision, values, place)
    phase, batches = values.phases[0], PhaseData(config, upstream).batches(0, values.phases[0])
    model = LightGen(values.model).init_weights(torch.Generator().manual_seed(values.seed))
    if values.checkpoint_activations:
        recompute_activations(model)
    return fit(
        model,
        PretrainingStep(values, batches, values.seed),
        phase.optimizer,
        values,
        Schedule(
            phase.steps,
            phase.batch_size,
            seed=values.seed,
            flops_per_sample=flops_of(values, phase),
            position=batches.position,
        ),
        place.path,
        accelerator=accelerator,
        label=place.fingerprint,
    )


def scored(
    config: RunConfig, name: str, out: Path, upstream: dict[str, Manifest], num: int
) -> tuple[dict[str, float], float]:
    """Shares of right pictures by task, and pictures trained a second."""
    assert config.student is not None
    phase = config.student.phases[0]
    place = TrainingFolder(out, "student", f"{name}-{phase.steps}-{config.student.seed}")
    average = train(config, upstream, place)
    save_weights(place.final, config.student.model, average, origins_of(config))
    watcher = Watcher.build(config, place.path, torch.device(config.device), num)
    shares = watcher.look(phase.steps * phase.batch_size, phase.image_size, average)
    return shares, median(line["samples_per_second"] for line in read_rows(place.path / LOG))


def row(name: str, outcomes: Sequence[tuple[dict[str, float], float]]) -> str:
    """The variant's line: means over seeds, and the six-task mean of each seed."""
    shares = [share for share, _ in outcomes]
    each = ", ".join(f"{share['mean']:.3f}" for share in shares)
    tasks = " | ".join(f"{mean(share[task] for share in shares):.2f}" for task in TASKS)
    total, speed = mean(share["mean"] for share in shares), mean(pace for _, pace in outcomes)
    return f"| {name} | {total:.3f} | {each} | {tasks} | {speed:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--run", default="tiny", help="its named run or YAML file")
    parser.add_argument("--out", type=Path, default=Path("artifacts/recipes"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--prompts", type=int, default=24, help="held-out prompts a task")
    parser.add_argument("--seeds", default="0", help="a training for each, such as 0,1,2")
    parser.add_argument("--variants", default="base", help=", ".join(VARIANTS))
    args = parser.parse_args()
    names = args.variants.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"no variant {unknown}; known: {', '.join(VARIANTS)}")
    upstream = {"features": manifest_of(args.root, "features")}
    print(f"| variant | mean | each seed | {' | '.join(TASKS)} | images/s |")
    print("|---" * (len(TASKS) + 4) + "|", flush=True)
    for name in names:
        outcomes = []
        for seed in map(int, args.seeds.split(",")):
            config = configured(args.run, args.root, name, args.steps, seed, upstream["features"])
            outcomes.append(scored(config, name, args.out, upstream, args.prompts))
        print(row(name, outcomes), flush=True)


if __name__ == "__main__":
    main()
