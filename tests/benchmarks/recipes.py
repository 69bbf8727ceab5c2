"""Recipes against each other: the student of the shapes world, trained from cached features.

    python -m tests.benchmarks.recipes --root artifacts/tiny --steps 600 --variants base,qk_norm

In:    the root of a finished run; its tables are read, nothing is written there.
Out:   a Markdown table, means over seeds: share of correct pictures on held-out prompts by the
       exact detector (mean of the six tasks, that of each seed, and each task), the mean of those
       that hold no object too many, pictures trained a second. Trainings lie under --out, each with
       a checkpoint `final`, which `tests.benchmarks.samplers` reads, `answers.json`, and with
       --every a learning curve, which `tests.benchmarks.budgets` compares.
Rerun: a variant that is trained is only scored again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from lightgen_model.model import LightGen
from pipeline.batches import TableRows
from pipeline.checkpoints import CURVE, Log, TrainingFolder, read_rows
from pipeline.config import RunConfig, load_run
from pipeline.description import write_whole
from pipeline.parallel import Weights, recompute_activations
from pipeline.pretraining import PhaseData, build_accelerator, flops_of, look
from pipeline.pretraining_step import PretrainingStep
from pipeline.records import LOG
from pipeline.shapes.grammar import TASKS
from pipeline.starting import origins_of, save_weights, start_from
from pipeline.tables import Manifest
from pipeline.training import Schedule, fit
from pipeline.watching import Watcher
from tests.benchmarks.answers import ANSWERS, Asked, answered
from tests.benchmarks.mirrored import MirroredBatches, batches_of, mirrored_rows, rows_of

MODEL, MASKING, OPTIMIZER = "student.model", "student.masking", "student.phases.0.optimizer"
# The published sampler (ancestral) draws noise from a DDPM head of so few steps; this one is the
# kindest of those tried: the noise of the first steps is too rough, so that tokens need a limit.
KIND_TO_DDPM = {
    "evaluation.sampling.solver": "dpm2m",
    "evaluation.sampling.head_steps": 12,
    "evaluation.sampling.token_limit": 4.0,
}
DDPM = {f"{MODEL}.head": {"kind": "ddpm", "depth": 3, "width": 256, "batch_multiplier": 4}}
PUBLISHED = {
    f"{MODEL}.attend_padding": True,
    f"{MODEL}.dropout": 0.1,
    MASKING: {"distribution": "truncated_normal", "min_ratio": 0.7, "per_sample": False},
}
# Half of the pictures mirrored, captions unchanged: not a value of a run (`mirrored.py`).
FLIPS = ("flips", "published", "published_flow", "repa_flips")
# Needs a run whose features have `alignment_encoder`; its width is read from the table.
REPA = ("repa", "repa_flips")
# Each is the run's own values with these changed.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "flips": {},
    "published": {**PUBLISHED, **DDPM, **KIND_TO_DDPM},
    "published_flow": PUBLISHED,  # with the run's own head
    "ddpm_head": {**DDPM, **KIND_TO_DDPM},
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
    "repa": {},
    "repa_flips": {},
}


Outcome = tuple[dict[str, float], float]  # shares of right pictures by task; pictures a second


def manifest_of(root: Path, stage: str) -> Manifest:
    """The newest manifest that the run's flow left."""
    paths = sorted((root / "manifests").glob(f"{stage}-*.json"), key=lambda p: p.stat().st_mtime)
    if not paths:
        raise ValueError(f"{root} holds no manifest of {stage}: finish the run first")
    return Manifest.from_json(json.loads(paths[-1].read_text("utf-8")))


def configured(
    run: str,
    root: Path,
    name: str,
    steps: int,
    seed: int,
    features: Manifest,
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    changes = {**VARIANTS[name], "root": str(root), "student.phases.0.steps": steps}
    changes |= {"student.tracker": "none", f"{OPTIMIZER}.warmup_steps": max(1, steps // 15)}
    changes["student.seed"] = seed
    if name in REPA:
        changes |= repa_of(root, run, features)
    return load_run(run, {**changes, **(overrides or {})})


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


def train(
    config: RunConfig,
    upstream: dict[str, Manifest],
    place: TrainingFolder,
    flips: bool,
    asked: Asked,
) -> Weights:
    """The averaged weights; with `asked.every`, a learning curve of so many steps a point."""
    values = config.student
    assert values is not None
    torch.set_float32_matmul_precision(values.matmul_precision)
    accelerator = build_accelerator(config, values.precision, values, place)
    phase, batches = values.phases[0], PhaseData(config, upstream).batches(0, values.phases[0])
    if flips:
        turned = mirrored_rows(config, upstream["features"], upstream["images"], place.root)
        batches = MirroredBatches.of(batches, turned)
    if asked.tasks:
        batches = batches_of(batches, rows_of(config, upstream, asked.tasks))
    model = LightGen(values.model).init_weights(torch.Generator().manual_seed(values.seed))
    average = start_from(Path(values.start), model) if values.start else None
    watch = None
    if asked.every:
        watch = partial(look, Watcher.build(config, place.path, accelerator.device), phase, 0)
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
            watch_every=asked.every,
            seed=values.seed,
            flops_per_sample=flops_of(values, phase),
            position=batches.position,
        ),
        place.path,
        accelerator=accelerator,
        average=average,
        watch=watch,
        label=place.fingerprint,
    )


def scored(
    config: RunConfig, place: TrainingFolder, upstream: dict[str, Manifest], asked: Asked
) -> Outcome:
    """Train what is not trained, and judge it; every answer is kept in `answers.json`."""
    assert config.student is not None
    phase, flips = config.student.phases[0], place.fingerprint.split("-")[0] in FLIPS
    average = train(config, upstream, place, flips, asked)
    save_weights(place.final, config.student.model, average, origins_of(config))
    answers = answered(config, place, average, asked)
    write_whole(place.path / ANSWERS, json.dumps(answers).encode())
    asked_for = [task for task in TASKS if task in (asked.tasks or TASKS)]
    shares = {t: mean(one["right"] for one in answers if one["task"] == t) for t in asked_for}
    shares["mean"] = mean(shares.values())
    shares["exact"] = mean(
        mean(one["exact"] for one in answers if one["task"] == task) for task in asked_for
    )
    if asked.every:  # the last point of the curve is as sure as the table
        log = Log(place.path / CURVE, phase.steps * phase.batch_size - 1, key="samples")
        log.write({"samples": phase.steps * phase.batch_size, "scores": shares})
    return shares, median(line["samples_per_second"] for line in read_rows(place.path / LOG))


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """The variant's line: means over seeds, and the six-task mean of each seed."""
    shares = [share for share, _ in outcomes]
    each = ", ".join(f"{share['mean']:.3f}" for share in shares)
    tasks = " | ".join(
        f"{mean(share[task] for share in shares):.2f}" if task in shares[0] else ""
        for task in TASKS
    )
    total, speed = mean(share["mean"] for share in shares), mean(pace for _, pace in outcomes)
    exact = mean(share["exact"] for share in shares)
    return f"| {name} | {total:.3f} | {each} | {exact:.3f} | {tasks} | {speed:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--run", default="tiny", help="its named run or YAML file")
    parser.add_argument("--out", type=Path, default=Path("artifacts/recipes"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--prompts", type=int, default=24, help="held-out prompts a task")
    parser.add_argument("--images", type=int, default=1, help="pictures a prompt")
    parser.add_argument("--every", type=int, default=0, help="steps between points of a curve")
    parser.add_argument("--tasks", default="", help="trained on and asked, such as position; all")
    parser.add_argument("--seeds", default="0", help="a training for each, such as 0,1,2")
    parser.add_argument("--variants", default="base", help=", ".join(VARIANTS))
    parser.add_argument("--overrides", type=json.loads, default={}, help="of all, JSON")
    parser.add_argument("--label", default="", help="of the trainings, where values are overridden")
    parser.add_argument("--features", type=Path, help="a manifest other than the newest")
    args = parser.parse_args()
    names = args.variants.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"no variant {unknown}; known: {', '.join(VARIANTS)}")
    upstream = {
        stage: manifest_of(args.root, stage) for stage in ("captions", "features", "images")
    }
    if args.features:
        upstream["features"] = Manifest.from_json(json.loads(args.features.read_text("utf-8")))
    tasks = tuple(args.tasks.split(",")) if args.tasks else ()
    asked = Asked(args.prompts, args.images, args.every, tasks)
    print(f"| variant | mean | each seed | exact | {' | '.join(TASKS)} | images/s |")
    print("|---" * (len(TASKS) + 5) + "|", flush=True)
    for name in names:
        outcomes = []
        for seed in map(int, args.seeds.split(",")):
            values = (args.run, args.root, name, args.steps, seed, upstream["features"])
            config = configured(*values, args.overrides)
            label = f"{name}-{args.label}{args.steps}-{seed}"
            place = TrainingFolder(args.out, "student", label)
            outcomes.append(scored(config, place, upstream, asked))
        print(row(name, outcomes), flush=True)


if __name__ == "__main__":
    main()
