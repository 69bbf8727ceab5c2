"""Ways of aligning against each other: one student, equal steps, the same prompts and seeds.

    python -m tests.benchmarks.alignments --root artifacts/tiny --variants paper,best_worst

In:    the root of a finished run. Samples, pairs, checkpoints and scores are made there, each once,
       under names of their own values; nothing that the run made is changed.
Out:   a Markdown table: share of correct pictures by the run's evaluator (mean of the tasks, and
       each of them), the mean's difference to the student with its standard error over prompts,
       and the mean of a task of interest.
Rerun: what is made already is only read.

`--steps` are those of one round; a variant of two rounds gets half of them in each.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline import evaluation, rounds
from pipeline.aligning import align_student
from pipeline.config import RunConfig, load_run
from pipeline.evaluation import MEAN
from pipeline.tables import Manifest, read
from pipeline.upstream import Step, resolve, steps

ON_POLICY = {"preferences.pairs": ["best_over_worst"]}
# The winner is right and the loser wrong: of a wrong picture the shapes judge says half its credit.
CLEAR = {**ON_POLICY, "preferences.alignment_weight": 1.0, "preferences.min_margin": 0.5}
PAPER = {"preferences.pairs": ["teacher_over_student"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "sft_on_teacher": {**PAPER, "dpo.loss": "sft"},
    "sft_on_winners": {**CLEAR, "dpo.loss": "sft"},
    "paper": PAPER,
    "paper_anchored": {**PAPER, "dpo.anchor": 20.0},
    "best_worst": ON_POLICY,
    "clear": CLEAR,
    "clear_anchored": {**CLEAR, "dpo.anchor": 20.0},
    "clear_balanced": {**CLEAR, "dpo.anchor": 20.0, "dpo.balance": "task"},
    "clear_ipo": {**CLEAR, "dpo.loss": "ipo"},
    "clear_kto": {**CLEAR, "dpo.loss": "kto"},
    "clear_noise_weights": {**CLEAR, "dpo.weighting": "noise"},
    "clear_two_rounds": {**CLEAR, "dpo.anchor": 20.0, "dpo.rounds": 2},
}


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


def correct(config: RunConfig, manifest: Manifest) -> dict[str, dict[tuple[str, int], float]]:
    """Checkpoint to (task, prompt) to the share of correct pictures."""
    table = read(config.root, manifest.snapshots[evaluation.STAGE], check=False)
    found: dict[str, dict[tuple[str, int], list[bool]]] = {}
    for row in table.select(["checkpoint", "task", "prompt_index", "correct"]).to_pylist():
        own = found.setdefault(row["checkpoint"], {})
        own.setdefault((row["task"], row["prompt_index"]), []).append(row["correct"])
    return {
        name: {prompt: float(np.mean(values)) for prompt, values in prompts.items()}
        for name, prompts in found.items()
    }


def row_of(name: str, config: RunConfig, manifest: Manifest) -> str:
    """A line of the table: the last checkpoint against the student."""
    shares, by_prompt = evaluation.scores(config, manifest), correct(config, manifest)
    last = list(shares)[-1]
    before, after = by_prompt["student"], by_prompt[last]
    tasks = sorted({task for task, _ in before})
    variance = 0.0
    for task in tasks:
        apart = [after[prompt] - before[prompt] for prompt in before if prompt[0] == task]
        variance += np.var(apart, ddof=1) / len(apart) / len(tasks) ** 2
    gain = shares[last][MEAN] - shares["student"][MEAN]
    cells = [name, f"{shares[last][MEAN]:.3f}", f"{gain:+.3f} ± {variance**0.5:.3f}"]
    return " | ".join(
        ["", *cells, *(f"{shares[last][task]:.3f}" for task in shares[last] if task != MEAN), ""]
    ).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", default="tiny")
    parser.add_argument("--root", required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the alignment; pairs stay")
    parser.add_argument("--overrides", type=json.loads, default={}, help="of all variants, JSON")
    args = parser.parse_args()
    for number, name in enumerate(args.variants.split(",")):
        values = VARIANTS[name]
        length = args.steps // values.get("dpo.rounds", 1)
        shared = {"root": args.root, "dpo.steps": length, "dpo.seed": args.seed, **args.overrides}
        config = load_run(args.run, {**shared, **values})
        upstream = resolve(config, "preferences")
        for step in steps(config)[len(upstream) :]:
            upstream[step.name] = made(config, step, upstream)
        if not number:
            tasks = [
                t for t in evaluation.scores(config, upstream["evaluate"])["student"] if t != MEAN
            ]
            print("| " + " | ".join(["alignment", "mean", "to the student", *tasks]) + " |")
            print("|---" * (len(tasks) + 3) + "|", flush=True)
        print(row_of(name, config, upstream["evaluate"]), flush=True)


if __name__ == "__main__":
    main()
