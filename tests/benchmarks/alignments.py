"""Ways of aligning against each other: one student, equal extra compute, equal prompts and seeds.

    python -m tests.benchmarks.alignments --root artifacts/tiny --seeds 0,1,2 \
        --variants continued,sft_on_winners,paper,clear,clear_three_rounds,strict_every

In:    the root of a finished run. Samples, pairs, checkpoints and scores are made there, each once,
       under names of their own values; nothing that the run made is changed.
Out:   lines of outcomes in --out; Markdown tables of all of them: shares of correct pictures, those
       without an object too many, paired differences to plain continued training.
Rerun: what is made already is only read. `--table` makes nothing and prints the tables.
       `--development` looks on other prompts, to choose by, and keeps no picture.

Compute is counted in pictures that a network trains on: a forward and a backward pass, 3 forward
passes. A step of DPO is 2 pictures a pair for the policy and a third of that for the reference; one
of SFT is half of it. A drawn picture is what `sampling_flops` makes it, 5 pictures trained in the
tiny run. The budget is that of `--steps` steps of DPO on the run's own samples; every variant gets
the steps that its samples leave, and continued training, which draws none, all of it.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lightgen_model.flops import sampling_flops, training_flops
from lightgen_model.unmasking import expected_ratio
from pipeline import alignment, evaluation, preferences, rounds, student
from pipeline.aligning import align_student
from pipeline.config import RunConfig, load_run
from pipeline.preferences import PREFERENCES
from pipeline.pretraining import train_student
from pipeline.tables import Manifest, read
from pipeline.upstream import Step, resolve, steps
from tests.benchmarks.alignment_development import on_development_prompts
from tests.benchmarks.alignment_outcomes import (
    Outcome,
    add_outcome,
    digits_of,
    read_outcomes,
    tables,
)

ON_POLICY = {"preferences.pairs": ["best_over_worst"]}
# The winner is right and the loser wrong: of a wrong picture the shapes judge says half its credit.
CLEAR = {**ON_POLICY, "preferences.alignment_weight": 1.0, "preferences.min_margin": 0.5}
MIXED = {**ON_POLICY, "preferences.alignment_weight": 0.5, "preferences.min_margin": 0.1}
PAPER = {**MIXED, "preferences.pairs": ["teacher_over_student"]}
# An object too many takes a quarter of the shapes judge's quality, so no crowded picture is good.
STRICT = {
    **MIXED,
    "preferences.pairs": ["good_over_bad"],
    "preferences.min_margin": 0.0,
    "preferences.scorer": {"judge": {"kind": "shapes"}, "min_quality": 0.76},
}
EVERY = {**STRICT, "preferences.pairs": ["every_good_over_bad"]}
# Samples at two thirds of the compute, which leaves a quarter more steps.
FAST = {"preferences.sampling.head_steps": 12, "dpo.optimizer.warmup_steps": 10}
CONTINUED = "continued"
# Shares of the budget for continued training of the student and of what was aligned.
BEFORE, AFTER = "before", "after"
VARIANTS: dict[str, dict[str, Any]] = {
    CONTINUED: {},
    "sft_on_teacher": {**PAPER, "dpo.loss": "sft"},
    "sft_on_winners": {**CLEAR, "dpo.loss": "sft"},
    "paper": PAPER,
    "paper_anchored": {**PAPER, "dpo.anchor": 20.0},
    "best_worst": MIXED,
    "clear": CLEAR,
    "clear_anchored": {**CLEAR, "dpo.anchor": 20.0},
    "clear_balanced": {**CLEAR, "dpo.balance": "task"},
    "clear_ipo": {**CLEAR, "dpo.loss": "ipo"},
    "clear_kto": {**CLEAR, "dpo.loss": "kto"},
    "clear_noise_weights": {**CLEAR, "dpo.weighting": "noise"},
    "clear_two_rounds": {**CLEAR, "dpo.rounds": 2},
    "clear_three_rounds": {**CLEAR, **FAST, "dpo.rounds": 3},
    "strict": STRICT,
    "strict_every": EVERY,
    "strict_every_kto": {**EVERY, "dpo.loss": "kto"},
    "strict_every_after_continued": {**EVERY, BEFORE: 0.5, "preferences.num_captions": 750},
    "strict_paper_anchored": {
        **STRICT,
        "preferences.pairs": ["teacher_over_student"],
        "dpo.anchor": 100.0,
        "dpo.optimizer.learning_rate": 1e-4,
    },
    "clear_then_continued": {**CLEAR, AFTER: 0.5, "preferences.num_captions": 750},
    "strict_balanced": {**STRICT, "dpo.balance": "task"},
    "strict_two_rounds": {**STRICT, "dpo.rounds": 2},
    "strict_three_rounds": {**STRICT, **FAST, "dpo.rounds": 3},
}

Look = Callable[[RunConfig, Manifest], Outcome]


# --- compute --------------------------------------------------------------------------------------


def drawn(config: RunConfig) -> float:
    """Pictures trained that the samples of all rounds are worth."""
    assert config.student
    assert config.preferences
    assert config.dpo
    values, model = config.preferences, config.student.model
    tokens = model.grid(values.image_size) ** 2
    masking = config.student.masking
    ratio = expected_ratio(masking.distribution, masking.min_ratio)
    one = sampling_flops(model, tokens, values.sampling) / training_flops(model, tokens, ratio)
    return one * values.num_captions * values.samples_per_caption * config.dpo.rounds


def step_cost(config: RunConfig) -> float:
    """Pictures trained in a step of alignment."""
    assert config.dpo
    sides = 1 if config.dpo.loss == "sft" else 2
    reference = 1 / 3 if config.dpo.reference_errors == "live" else 0
    return sides * config.dpo.batch_size * (1 + reference)


def configured(run: str, values: Mapping[str, Any], budget: float) -> RunConfig:
    """A variant with as many steps as its budget leaves, its rounds with equal parts of all."""
    config = load_run(run, values)
    assert config.dpo
    assert config.preferences
    if config.dpo.rounds > 1:
        captions = config.preferences.num_captions // config.dpo.rounds
        values = {**values, "preferences.num_captions": captions}
        config = load_run(run, values)
        assert config.dpo
    length = round((budget - drawn(config)) / step_cost(config) / config.dpo.rounds)
    return load_run(run, {**values, "dpo.steps": max(1, length)})


# --- making ---------------------------------------------------------------------------------------


def made(config: RunConfig, step: Step, upstream: Mapping[str, Manifest]) -> Manifest:
    """A step's manifest, after making it where it is not there."""
    seen = dict(upstream)
    if step.round:
        config, seen = rounds.at(config, step.round), rounds.seen_by(upstream, step.round)
    found = step.stage.find(config, seen)
    if found is not None:
        return found
    stage: Any = step.stage
    if stage.STAGE == rounds.DPO:
        align_student(config, seen)
        manifest: Manifest = stage.find(config, seen)
        return manifest
    works = stage.plan(config, seen)
    shards = [shard for w in works for shard in stage.make(config, seen, w, lambda rows: None)]
    committed: Manifest = stage.commit(config, seen, shards)
    return committed


def aligned(config: RunConfig, start: Manifest | None = None) -> tuple[Manifest, int]:
    """The last round's checkpoint, and the pairs of all rounds; `start` learns them, if given."""
    upstream = resolve(config, preferences.STAGE)
    number, pairs = len(upstream), 0
    for step in steps(config)[number:-1]:
        if start is not None and step.stage is alignment:
            upstream[student.STAGE] = start
        upstream[step.name] = made(config, step, upstream)
        if step.stage is preferences:
            snapshot = upstream[step.name].snapshots[PREFERENCES.name]
            pairs += sum(read(config.root, snapshot, ["keep"])["keep"].to_pylist())
    ((stage, _), *_) = reversed(rounds.aligned(upstream))
    return upstream[stage], pairs


def path_of(manifest: Manifest) -> str:
    """Where a student or the last of some rounds lies, below the root."""
    path = manifest.checkpoints.get(student.CHECKPOINT)
    return path or next(iter(manifest.checkpoints.values()))


def continued(
    config: RunConfig, budget: float, start: Manifest | None = None
) -> tuple[Manifest, int]:
    """The student, or `start`, trained on as its last phase was; the steps the budget buys."""
    assert config.student
    upstream = resolve(config, preferences.STAGE)
    place = Path(config.root) / path_of(start or upstream[student.STAGE])
    phase = config.student.phases[-1]
    length = round(budget / phase.batch_size)
    further = config.student.model_copy(
        update={
            "start": str(place),
            "phases": (phase.model_copy(update={"steps": length}),),
            "seed": config.student.seed + 1 + (config.dpo.seed if config.dpo else 0),
            "sample_every": length,
        }
    )
    on = config.model_copy(update={"student": further})
    above = {name: m for name, m in upstream.items() if name != student.STAGE}
    if student.find(on, above) is None:
        train_student(on, above)
    found = student.find(on, above)
    assert found
    return found, length


def measured(config: RunConfig, last: Manifest) -> Outcome:
    """The outcome of a checkpoint that the evaluation takes for the run's aligned one."""
    assert config.dpo
    upstream = {student.STAGE: resolve(config, preferences.STAGE)[student.STAGE]}
    upstream[alignment.STAGE] = replace(last, checkpoints={alignment.CHECKPOINT: path_of(last)})
    manifest = made(config, Step(evaluation.STAGE, evaluation), upstream)
    columns = ["checkpoint", "task", "prompt_index", "image_index", "correct", "extra_objects"]
    table = read(config.root, manifest.snapshots[evaluation.STAGE], columns, check=False)
    rows = table.filter(pc.equal(table["checkpoint"], alignment.CHECKPOINT))
    right, extra, pictures = digits_of(rows)
    return Outcome("", config.dpo.seed, 0.0, 0, 0, 0.0, right, extra, pictures)


def outcome(name: str, run: str, values: Mapping[str, Any], budget: float, look: Look) -> Outcome:
    """A variant, made with these values and looked at."""
    values = dict(values)
    before, after = (budget * values.pop(part, 0.0) for part in (BEFORE, AFTER))
    config = configured(run, values, budget - before - after)
    assert config.dpo
    began = time.process_time()
    if name == CONTINUED:
        last, length = continued(config, budget)
        pairs, compute = 0, 1.0
    else:
        start = continued(config, before)[0] if before else None
        last, pairs = aligned(config, start)
        if after:
            last, _ = continued(config, after, last)
        length = config.dpo.steps * config.dpo.rounds
        compute = (before + after + drawn(config) + length * step_cost(config)) / budget
    minutes = (time.process_time() - began) / 60
    known = look(config, last)
    return replace(known, variant=name, compute=compute, steps=length, pairs=pairs, minutes=minutes)


def developed(config: RunConfig, last: Manifest) -> Outcome:
    """The outcome of a checkpoint on prompts that are for choosing."""
    return on_development_prompts(config, Path(config.root) / path_of(last))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", default="tiny")
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", type=Path, default=Path("artifacts/alignments.jsonl"))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=200, help="of DPO, which make the budget")
    parser.add_argument("--seeds", default="0", help="of the alignment; pairs stay")
    parser.add_argument("--overrides", type=json.loads, default={}, help="of all variants, JSON")
    parser.add_argument("--label", default="", help="behind the variant's name, for overrides")
    parser.add_argument("--development", action="store_true", help="other prompts, to choose by")
    parser.add_argument("--table", action="store_true", help="only print what --out holds")
    args = parser.parse_args()
    names = [] if args.table else args.variants.split(",")
    for seed in map(int, args.seeds.split(",")):
        for name in names:
            shared = {"root": args.root, "dpo.seed": seed}
            first = load_run(args.run, {**shared, "dpo.steps": args.steps})
            budget = drawn(first) + args.steps * step_cost(first)
            values = {**shared, **VARIANTS[name], **args.overrides}
            look = developed if args.development else measured
            found = outcome(name, args.run, values, budget, look)
            add_outcome(args.out, replace(found, variant=name + args.label))
    for line in tables(read_outcomes(args.out), CONTINUED):
        print(line)


if __name__ == "__main__":
    main()
