"""Feedback rounds against each other: every pair of arms, by GenEval's rules and by stricter ones.

    python -m tests.benchmarks.feedback_rounds --root artifacts/tiny

In:    the root in which `ablate/tiny --param study=feedback` was made, or a part of it.
Out:   Markdown: shares of correct pictures by task, those with no object too many;
       paired differences of the arms, whose p is corrected for the pairs that the plan names.
Rerun: nothing is made; the same scores give the same tables.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean

from pipeline import evaluation, student
from pipeline.ablations import Trial, load_ablations, trials
from pipeline.config import RunConfig, load_run
from pipeline.feedback import next_round, task_shares
from pipeline.shapes.grammar import TASKS
from pipeline.significance import MEAN, Comparison
from pipeline.standings import COLUMNS, EXTRA
from pipeline.tables import Manifest, Snapshot, read
from pipeline.upstream import found_of
from tests.benchmarks.alignment_outcomes import Outcome, against, digits_of

# What the plan was: of these four the p are corrected together (Holm).
TESTED = (
    ("by need", "equal shares"),
    ("by need squared", "equal shares"),
    ("by need", "without feedback"),
    ("by need squared", "without feedback"),
)
TOLD = (("equal shares", "without feedback"), ("without feedback", "before"), ("by need", "before"))
Found = Mapping[str, Sequence[Outcome]]


def outcomes(root: str, study: str = "feedback") -> Iterator[Outcome]:
    """What is made of the study, in its order; an arm whose scores are not there is left out."""
    given = load_ablations("tiny")
    before: dict[tuple[str, int], tuple[RunConfig, Mapping[str, Manifest]]] = {}
    for trial in trials(given, given.studies[study], {"root": root}):
        config = load_run("tiny", trial.overrides | rounds_values(trial, before))
        try:
            upstream = found_of(config, student.STAGE)
        except ValueError:  # this arm is not trained yet
            continue
        trained = upstream[student.STAGE]
        only = {student.CHECKPOINT: trained.checkpoints[student.CHECKPOINT]}
        alone = {**upstream, student.STAGE: replace(trained, checkpoints=only)}
        scored = evaluation.find(config, alone)
        if scored is None:
            continue
        before[trial.label, trial.seed] = config, {**upstream, evaluation.STAGE: scored}
        yield outcome(trial, config, scored.snapshots[evaluation.STAGE])


def rounds_values(
    trial: Trial, before: Mapping[tuple[str, int], tuple[RunConfig, Mapping[str, Manifest]]]
) -> dict[str, object]:
    asked = trial.feedback
    if asked is None:
        return {}
    if (asked.after, trial.seed) not in before:
        raise ValueError(f"{asked.after!r} has no scores yet: run ablate/tiny with study=feedback")
    config, upstream = before[asked.after, trial.seed]
    scores = evaluation.scores(config, upstream[evaluation.STAGE])[student.CHECKPOINT]
    shares = task_shares(scores, strength=asked.strength, floor=asked.floor)
    return next_round(config, upstream, shares, asked.num_captions, balance=asked.balance)


def outcome(trial: Trial, config: RunConfig, snapshot: Snapshot) -> Outcome:
    table = read(config.root, snapshot, [*COLUMNS, EXTRA], check=False)
    right, extra, pictures = digits_of(table)
    assert config.student is not None
    steps = sum(phase.steps for phase in config.student.trained)
    return Outcome(trial.label, trial.seed, 1.0, steps, 0, 0.0, right, extra, pictures)


# --- tables ---------------------------------------------------------------------------------------


def shares(found: Found) -> Iterator[str]:
    header = ["arm", "seeds", "mean", "each seed", *TASKS, "right and none too many"]
    yield from line(header, rule=True)
    for label, own in found.items():
        each = ", ".join(f"{one.share(MEAN):.3f}" for one in own)
        cells = [label, str(len(own)), f"{mean(one.share(MEAN) for one in own):.3f}", each]
        cells += [f"{mean(one.share(task) for one in own):.3f}" for task in TASKS]
        yield from line([*cells, f"{mean(one.strict(MEAN) for one in own):.3f}"])


def differences(found: Found) -> Iterator[str]:
    """Pairs of the seeds that both have."""
    pairs = [pair for pair in (*TESTED, *TOLD) if all(label in found for label in pair)]
    rows = {pair: compared(found, pair, "right") for pair in pairs}
    holm = corrected({pair: rows[pair][MEAN].p for pair in pairs if pair in TESTED})
    header = ["pair", "seeds", "mean", "p", "p, Holm", *TASKS, "none too many", "p"]
    yield from line(header, rule=True)
    for pair in pairs:
        whole, strict = rows[pair][MEAN], compared(found, pair, "strict")[MEAN]
        cells = [" less ".join(pair), str(len(seeds_of(found, pair))), told(whole)]
        cells += [f"{whole.p:.4f}", f"{holm[pair]:.4f}" if pair in holm else ""]
        cells += [f"{rows[pair][task].difference:+.3f}" for task in TASKS]
        yield from line([*cells, told(strict), f"{strict.p:.4f}"])


def seeds_of(found: Found, pair: tuple[str, str]) -> list[int]:
    one, other = ({each.seed for each in found[label]} for label in pair)
    return sorted(one & other)


def compared(found: Found, pair: tuple[str, str], value: str) -> dict[str, Comparison]:
    seeds = seeds_of(found, pair)
    after, before = ([o for o in found[label] if o.seed in seeds] for label in pair)
    return {row.task: row for row in against(before, after, value)}


def corrected(ps: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Holm's step-down: the smallest p times their number, the next times one less, rising."""
    found: dict[tuple[str, str], float] = {}
    highest = 0.0
    for place, pair in enumerate(sorted(ps, key=lambda each: ps[each])):
        highest = max(highest, min(1.0, ps[pair] * (len(ps) - place)))
        found[pair] = highest
    return found


def told(row: Comparison) -> str:
    return f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"


def line(cells: Sequence[str], *, rule: bool = False) -> Iterator[str]:
    yield "| " + " | ".join(cells) + " |"
    if rule:
        yield "|---" * len(cells) + "|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--root", required=True)
    root = parser.parse_args().root
    found: dict[str, list[Outcome]] = {}
    for one in outcomes(root):
        found.setdefault(one.variant, []).append(one)
    print("\n".join([*shares(found), "", *differences(found)]))


if __name__ == "__main__":
    main()
