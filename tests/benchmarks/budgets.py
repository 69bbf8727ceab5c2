"""The published recipe against ours at an equal budget, and flips against none.

    python -m tests.benchmarks.recipes --root R --out O --every 100 --variants published,repa ...
    python -m tests.benchmarks.budgets --root R --out O --published published-700-0 --ours A,B

In:    trainings that `tests.benchmarks.recipes` left under --out, with curves and answers.
Out:   two Markdown tables. Budgets: each training's score with its interval, the work of a step as
       torch counts it, and the step at which ours first scores what the published one ends with,
       both in steps and in work; --plot: the curves against work. Pairs (--pairs before:after,...):
       the difference on the same prompts and seeds with its interval, by task.
Rerun: the same trainings give the same numbers.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightgen_model.model import LightGen
from pipeline.checkpoints import CURVE, read_rows
from pipeline.plots import Series, curve_plot
from pipeline.pretraining import PhaseData
from pipeline.pretraining_step import PretrainingStep
from pipeline.significance import (
    Interval,
    compare,
    mean_interval,
    share_interval,
)
from pipeline.tables import Manifest
from pipeline.training import Part
from tests.benchmarks.answers import answers_of
from tests.benchmarks.recipes import configured, manifest_of

COUNTED = 4  # steps whose work is counted


class Trained(NamedTuple):
    """One training: its curve, and the work of a step."""

    name: str
    steps: Sequence[float]
    scores: Sequence[float]
    flops: float  # of a step
    score: Interval
    exact: Interval  # right, and no object too many

    @property
    def work(self) -> list[float]:
        """Petaflop behind each point."""
        return [step * self.flops / 1e15 for step in self.steps]


def score_of(out: Path, name: str, measure: str = "right") -> Interval:
    right, prompts = answers_of(out, name, measure)
    return mean_interval([share_interval(right[task], prompts[task]) for task in right])


def trained(root: Path, out: Path, run: str, name: str, features: Manifest) -> Trained:
    """A training by its label, such as `published-700-0`."""
    variant, *_, steps, seed = name.split("-")
    config = configured(run, root, variant, int(steps), int(seed), features)
    assert config.student is not None
    values, phase = config.student, config.student.phases[0]
    batches = PhaseData(config, {"features": features}).batches(0, phase)
    model = LightGen(values.model).init_weights(torch.Generator().manual_seed(0))
    step = PretrainingStep(values, batches, values.seed)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        for number in range(COUNTED):
            torch.autograd.backward(step(model, number, Part())[0])
    points = read_rows(out / "checkpoints" / f"student-{name}" / CURVE)
    if len(points) < 3:
        raise ValueError(f"{name} has no learning curve: train it with --every")
    return Trained(
        name,
        [point["samples"] / phase.batch_size for point in points],
        [point["scores"]["mean"] for point in points],
        counted.get_total_flops() / COUNTED,
        score_of(out, name),
        score_of(out, name, "exact"),
    )


def reached(steps: Sequence[float], scores: Sequence[float], score: float) -> float | None:
    """The step at which a curve's straight lines first come to `score`; None: they do not."""
    for number, (step, now) in enumerate(zip(steps, scores, strict=True)):
        if now >= score:
            if number == 0:
                return step
            before, low = steps[number - 1], scores[number - 1]
            return before + (step - before) * (score - low) / (now - low)
    return None


def budget_row(published: Trained, ours: Trained) -> str:
    """Fewer steps, and less work, to what the published recipe ends with; in brackets to the upper
    end of its interval."""
    cells = []
    for target in (published.score.share, published.score.high):
        step = reached(ours.steps, ours.scores, target)
        fewer = "not reached" if not step else f"{step:.0f}"
        if step:
            less = published.steps[-1] * published.flops / (step * ours.flops)
            fewer += f" ({published.steps[-1] / step:.1f}x fewer steps, {less:.1f}x less work)"
        cells.append(fewer)
    return f"| {ours.name} | {published.name} | {' | '.join(cells)} |"


def pair_rows(out: Path, before: str, after: str) -> list[str]:
    first, prompts = answers_of(out, before)
    rows = compare((before, after), first, answers_of(out, after)[0], prompts)
    return [
        f"| {row.task} | {before} | {after} | {row.difference:+.3f} "
        f"({row.low:+.3f} to {row.high:+.3f}) | {row.p:.4f} | {row.prompts} | {row.pictures} |"
        for row in rows
    ]


def print_header(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n{'|---' * len(names)}|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--out", type=Path, default=Path("artifacts/recipes"))
    parser.add_argument("--run", default="tiny", help="its named run or YAML file")
    parser.add_argument("--features", type=Path, help="a manifest other than the newest")
    parser.add_argument("--published", default="", help="trainings, with commas")
    parser.add_argument("--ours", default="", help="trainings, with commas")
    parser.add_argument("--pairs", default="", help="before:after, with commas")
    parser.add_argument("--plot", type=Path, help="an SVG of the curves")
    args = parser.parse_args()
    features = manifest_of(args.root, "features")
    if args.features:
        features = Manifest.from_json(json.loads(args.features.read_text("utf-8")))
    sides = [
        [trained(args.root, args.out, args.run, name, features) for name in names.split(",")]
        if names
        else []
        for names in (args.published, args.ours)
    ]
    if all(sides):
        print_header(
            "training",
            "steps",
            "teraflop a step",
            "petaflop",
            "six-task mean",
            "no object too many",
        )
        for each in (*sides[0], *sides[1]):
            told = f"{each.steps[-1]:.0f} | {each.flops / 1e12:.3f} | {each.work[-1]:.3f}"
            print(f"| {each.name} | {told} | {each.score} | {each.exact} |")
        print_header("ours", "published", "its score by step", "its upper end by step")
        for one in sides[0]:
            for other in sides[1]:
                print(budget_row(one, other))
    if args.plot:
        lines = [Series(each.name, each.work, each.scores) for side in sides for each in side]
        args.plot.write_bytes(curve_plot(lines, "petaflop of training", "share of right pictures"))
    if args.pairs:
        print_header("task", "before", "after", "difference", "p", "prompts", "pictures")
        for pair in args.pairs.split(","):
            print("\n".join(pair_rows(args.out, *pair.split(":"))))


if __name__ == "__main__":
    main()
