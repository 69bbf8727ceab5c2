"""Where each checkpoint stands: shares of correct pictures with intervals, and paired differences.

In:    rows of the table `scores`.
Out:   numbers by checkpoint and task. With several evaluators a task is `evaluator/task` and each
       evaluator has its own mean, over its tasks and not over pictures; "mean" is the first's.
       The strict score of a picture is 1 where it is right and has no object too many: GenEval's
       rules forgive those in all tasks but counting, so that clutter can look like progress.
Rerun: the same rows give the same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.significance import (
    MEAN,
    Comparison,
    Interval,
    Prompts,
    Right,
    compare,
    mean_interval,
    share_interval,
)

COLUMNS = ("evaluator", "checkpoint", "task", "prompt_index", "image_index", "seed", "correct")
EXTRA = "extra_objects"

Value = TypeVar("Value")
Intervals = dict[str, dict[str, Interval]]  # checkpoint -> task -> share


@dataclass(frozen=True)
class Answers:
    """The pictures of one checkpoint and task, in the order of prompts and their pictures."""

    right: Right
    prompts: Prompts
    asked: tuple[tuple[int, int, int], ...]  # prompt, picture and seed of each


@dataclass(frozen=True)
class Evidence:
    """What a report shows beside the shares."""

    intervals: Intervals
    comparisons: tuple[Comparison, ...]
    strict: Intervals
    strict_comparisons: tuple[Comparison, ...]


def evidence(table: pa.Table) -> Evidence:
    exact = strict(table)
    return Evidence(
        intervals(table), tuple(comparisons(table)), intervals(exact), tuple(comparisons(exact))
    )


def strict(table: pa.Table) -> pa.Table:
    """The same rows, right only where there is no object too many."""
    right = pc.and_(table["correct"], pc.equal(table[EXTRA], 0))
    number = table.schema.get_field_index("correct")
    return table.set_column(number, "correct", right).drop_columns([EXTRA])


def summarise(table: pa.Table) -> dict[str, dict[str, float]]:
    """Checkpoint to task to share of correct pictures."""
    found: dict[str, dict[str, float]] = {}
    for name, by_evaluator in _shares(table).items():
        found[name] = _labelled(by_evaluator, {e: _mean(s) for e, s in by_evaluator.items()})
    return found


def intervals(table: pa.Table) -> Intervals:
    """The same shares with what is known of them."""
    found: Intervals = {}
    for name, evaluators in answers(table).items():
        shares = {
            evaluator: {task: share_interval(a.right, a.prompts) for task, a in tasks.items()}
            for evaluator, tasks in evaluators.items()
        }
        means = {each: mean_interval(list(tasks.values())) for each, tasks in shares.items()}
        found[name] = _labelled(shares, means)
    return found


def comparisons(table: pa.Table) -> Iterator[Comparison]:
    """The last checkpoint against each one before it, the nearest first."""
    by_checkpoint = answers(table)
    *earlier, last = by_checkpoint
    for before in reversed(earlier):
        yield from compared((before, last), by_checkpoint[before], by_checkpoint[last])


def compared(
    names: tuple[str, str],
    before: Mapping[str, Mapping[str, Answers]],
    after: Mapping[str, Mapping[str, Answers]],
) -> Iterator[Comparison]:
    """By evaluator and task; tasks that were not asked alike of both are left out."""
    several = len(after) > 1
    for evaluator, tasks in after.items():
        other = before.get(evaluator, {})
        alike = [t for t in tasks if t in other and other[t].asked == tasks[t].asked]
        for row in compare(
            names,
            {task: other[task].right for task in alike},
            {task: tasks[task].right for task in alike},
            {task: tasks[task].prompts for task in alike},
        ):
            yield _renamed(row, f"{evaluator}/{row.task}") if several else row


def answers(table: pa.Table) -> dict[str, dict[str, dict[str, Answers]]]:
    """Checkpoint, evaluator and task to its pictures."""
    found: dict[str, dict[str, dict[str, Answers]]] = {}
    keys = table.select(["checkpoint", "evaluator", "task"])
    for key in dict.fromkeys(zip(*(column.to_pylist() for column in keys), strict=True)):
        checkpoint, evaluator, task = key
        rows = _rows_of(table, key)
        columns = [rows[name].to_pylist() for name in ("prompt_index", "image_index", "seed")]
        found.setdefault(checkpoint, {}).setdefault(evaluator, {})[task] = Answers(
            rows["correct"].to_numpy(zero_copy_only=False),
            rows["prompt_index"].to_numpy().astype(np.int64),
            tuple(zip(*columns, strict=True)),
        )
    return found


def _rows_of(table: pa.Table, key: Sequence[str]) -> pa.Table:
    checkpoint, evaluator, task = key
    wanted = pc.and_(
        pc.equal(table["checkpoint"], checkpoint),
        pc.and_(pc.equal(table["evaluator"], evaluator), pc.equal(table["task"], task)),
    )
    return table.filter(wanted).sort_by(
        [("prompt_index", "ascending"), ("image_index", "ascending")]
    )


def _shares(table: pa.Table) -> dict[str, dict[str, dict[str, float]]]:
    correct: dict[str, dict[str, dict[str, list[bool]]]] = {}
    for row in table.select(["evaluator", "checkpoint", "task", "correct"]).to_pylist():
        tasks = correct.setdefault(row["checkpoint"], {}).setdefault(row["evaluator"], {})
        tasks.setdefault(row["task"], []).append(row["correct"])
    return {
        name: {
            evaluator: {task: sum(right) / len(right) for task, right in tasks.items()}
            for evaluator, tasks in evaluators.items()
        }
        for name, evaluators in correct.items()
    }


def _labelled(
    by_evaluator: Mapping[str, Mapping[str, Value]], means: Mapping[str, Value]
) -> dict[str, Value]:
    """Tasks and mean of one evaluator by their names, of several with the evaluator's before."""
    if len(by_evaluator) == 1:
        ((evaluator, tasks),) = by_evaluator.items()
        return {**tasks, MEAN: means[evaluator]}
    labelled: dict[str, Value] = {}
    for evaluator, tasks in by_evaluator.items():
        labelled |= {f"{evaluator}/{task}": value for task, value in tasks.items()}
        labelled[f"{evaluator}/{MEAN}"] = means[evaluator]
    return {**labelled, MEAN: next(iter(means.values()))}


def _renamed(row: Comparison, task: str) -> Comparison:
    return Comparison(**{**row.to_json(), "task": task})


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / len(shares)
