"""What a study found: shares of correct pictures by point, with intervals, and paired differences.

In:    the evaluation of each point and seed, and what the student learned from.
Out:   `Found`: a row a point, pooled over its seeds; JSON, a table, Markdown.
Rerun: the same evaluations give the same numbers.

The prompt is the unit of an interval and of a test, over all seeds together: four pictures of it by
two students are eight that are alike. So an interval says how sure the score of *these* students is
over prompts, not what another training seed would give; that is what the scores of each seed show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline import evaluation, student, subsets
from pipeline.ablations import FeedbackPoint, Study, Trial
from pipeline.config import RunConfig
from pipeline.description import Grid, table
from pipeline.evaluation_description import chance
from pipeline.significance import MEAN, Comparison, Interval, compare, mean_interval, share_interval
from pipeline.standings import COLUMNS, Answers, answers
from pipeline.tables import Manifest, read
from pipeline.values import flattened


@dataclass(frozen=True)
class Outcome:
    """One point under one seed."""

    label: str
    seed: int
    tasks: Mapping[str, Answers]
    facts: Mapping[str, float]  # captions, pictures, steps, samples, clusters, vendi


@dataclass(frozen=True)
class Row:
    """One point, all its seeds together."""

    label: str
    facts: Mapping[str, float]  # of the seeds' mean
    shares: Mapping[str, Interval]  # task to share; MEAN last
    seeds: Mapping[int, float]  # seed to its mean over tasks
    against: tuple[Comparison, ...] = field(default=())  # this point less the reference

    @property
    def difference(self) -> Comparison | None:
        return self.against[-1] if self.against else None


@dataclass(frozen=True)
class Found:
    name: str
    study: Study
    rows: tuple[Row, ...]


def outcome(config: RunConfig, trial: Trial, upstream: Mapping[str, Manifest]) -> Outcome:
    """Read one evaluation: its first evaluator, its one checkpoint."""
    snapshot = upstream[evaluation.STAGE].snapshots[evaluation.STAGE]
    found = answers(read(config.root, snapshot, COLUMNS, check=False))
    by_evaluator = found[student.CHECKPOINT]
    tasks = next(iter(by_evaluator.values()))
    return Outcome(trial.label, trial.seed, tasks, facts_of(config, upstream))


def facts_of(config: RunConfig, upstream: Mapping[str, Manifest]) -> dict[str, float]:
    """How much the student learned from, and how varied it is."""
    assert config.student is not None
    trained = config.student.trained
    return {
        **subsets.measures(config, upstream),
        "steps": float(sum(phase.steps for phase in trained)),
        "samples": float(sum(phase.steps * phase.batch_size for phase in trained)),
    }


def collect(name: str, study: Study, outcomes: Sequence[Outcome]) -> Found:
    """The study so far: points that nothing is known of yet are left out."""
    own = {p.label: [o for o in outcomes if o.label == p.label] for p in study.points}
    reference = own[study.reference]
    rows = [
        _row(outcomes, [] if label == study.reference else reference)
        for label, outcomes in own.items()
        if outcomes
    ]
    return Found(name, study, tuple(rows))


def _row(own: Sequence[Outcome], reference: Sequence[Outcome]) -> Row:
    shares = {task: share_interval(*_pooled(own, task)) for task in own[0].tasks}
    seeds = {
        o.seed: float(np.mean([np.mean(each.right) for each in o.tasks.values()])) for o in own
    }
    facts = {name: float(np.mean([o.facts[name] for o in own])) for name in own[0].facts}
    shares[MEAN] = mean_interval(list(shares.values()))
    return Row(own[0].label, facts, shares, seeds, _against(own, reference))


def _pooled(outcomes: Sequence[Outcome], task: str) -> tuple[Any, Any]:
    """The pictures of all seeds, and their prompts."""
    every = [outcome.tasks[task] for outcome in outcomes]
    return (
        np.concatenate([each.right for each in every]),
        np.concatenate([each.prompts for each in every]),
    )


def _against(own: Sequence[Outcome], reference: Sequence[Outcome]) -> tuple[Comparison, ...]:
    """Paired by training seed, prompt and picture; of the seeds that both have."""
    before = {o.seed: o for o in reference}
    after = [o for o in own if o.seed in before]
    if not after:
        return ()
    pairs = [before[o.seed] for o in after]
    for one, other in zip(after, pairs, strict=True):
        apart = [t for t in one.tasks if one.tasks[t].asked != other.tasks[t].asked]
        if apart:
            raise ValueError(
                f"points {other.label!r} and {one.label!r} were not asked alike in {apart}: give "
                "them the same evaluation"
            )
    tasks = list(after[0].tasks)
    return tuple(
        compare(
            (pairs[0].label, after[0].label),
            {task: _pooled(pairs, task)[0] for task in tasks},
            {task: _pooled(after, task)[0] for task in tasks},
            {task: _pooled(after, task)[1] for task in tasks},
        )
    )


# --- what a person sees -------------------------------------------------------------------------


def to_json(found: Found) -> dict[str, Any]:
    return {
        "schema": 1,
        "study": found.name,
        "title": found.study.title,
        "question": found.study.question,
        "axis": found.study.axis,
        "reference": found.study.reference,
        "points": [
            {
                "label": row.label,
                **{name: round(value, 4) for name, value in row.facts.items()},
                "shares": {task: asdict(share) for task, share in row.shares.items()},
                "seeds": {str(seed): mean for seed, mean in row.seeds.items()},
                "against_reference": [each.to_json() for each in row.against],
            }
            for row in found.rows
        ],
    }


def grid(found: Found) -> Grid:
    """A line a point."""
    tasks = [task for task in found.rows[0].shares if task != MEAN] if found.rows else []
    header = (
        *("point", "captions", "clusters", "steps", "mean (95 %)", "each seed"),
        *("to the reference (95 %)", "p"),
        *(task.replace("_", " ") for task in tasks),
    )
    return Grid(
        "Share of correct pictures", header, tuple(_cells(row, tasks) for row in found.rows)
    )


def _cells(row: Row, tasks: Sequence[str]) -> tuple[str, ...]:
    change = row.difference
    told = ("reference", "")
    if change:
        told = (
            f"{change.difference:+.3f} ({change.low:+.3f} to {change.high:+.3f})",
            chance(change.p),
        )
    return (
        row.label,
        f"{row.facts['captions']:,.0f}",
        f"{row.facts['clusters']:.0%}",
        f"{row.facts['steps']:,.0f}",
        str(row.shares[MEAN]),
        ", ".join(f"{mean:.3f}" for mean in row.seeds.values()),
        *told,
        *(f"{row.shares[task].share:.2f}" for task in tasks),
    )


CAUTION = (
    "Intervals and tests are over prompts, for these trained students; how far another training "
    "seed may fall is seen from the scores of each seed alone."
)


def markdown(found: Found, plot: str = "") -> str:
    """A page; `plot` is put where it belongs, as Markdown."""
    differing = Grid(
        "",
        ("point", "what differs"),
        tuple((point.label, _values(point.values, point.feedback)) for point in found.study.points),
    )
    parts = [
        f"# {found.study.title}",
        found.study.question,
        plot,
        table(grid(found)),
        CAUTION,
        "Clusters: the share of 200 clusters of all captions that a point's captions reach.",
        f"### What differs\n\n{table(differing)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _values(values: Mapping[str, Any], feedback: FeedbackPoint | None) -> str:
    told = [
        f"{place} = {value}"
        for path, value in values.items()
        for place, value in (dict(flattened(value, path)) if value else {path: value}).items()
    ]
    if feedback:
        told.append(
            f"goes on after {feedback.after!r} with {feedback.num_captions:,} captions more, "
            f"shares by (1 - score) ** {feedback.strength:g}, at least {feedback.floor:g}, of "
            + ("all that is shown" if feedback.balance else "these alone")
        )
    return "; ".join(told) or "nothing: the values of every point"
