"""Responsive teaching: what a student cannot do yet is what the next captions ask for.

In:    the shares of correct pictures by task, from an evaluation; the run that they are of.
Out:   the overrides of the next round: one more source of captions, whose tasks have the shares
       that the scores ask for; with `balance` the same shares of all that the student is shown,
       new captions and old; and the student to go on from.
Rerun: the same scores give the same overrides, so the next round's tables are found again.

Rows of the sources before stay as they are: only the new captions are drawn, judged and encoded.
The old ones are many times the new, so new captions alone would change little of what is learned.
"""

from collections.abc import Mapping
from typing import Any

from pipeline import evaluation, student
from pipeline.config import RunConfig, ShapesCaptions
from pipeline.drawing import checkpoint_folder
from pipeline.shapes.grammar import TASKS
from pipeline.tables import Manifest

NAME = "feedback"
SEED_APART = 7919  # so that no round repeats another one's captions
DIGITS = 4


def task_shares(
    scores: Mapping[str, float], *, strength: float = 1.0, floor: float = 0.05
) -> dict[str, float]:
    """Shares of captions by task: each has `floor`, the rest follows (1 - score) ** strength.

    ValueError for scores outside 0..1 and a floor that leaves nothing to share out.
    """
    tasks = {task: score for task, score in scores.items() if task != evaluation.MEAN}
    wrong = {task: score for task, score in tasks.items() if not 0 <= score <= 1}
    if wrong or not tasks:
        raise ValueError(f"scores: {wrong or dict(scores)}; shares of correct pictures are 0 to 1")
    if not 0 <= floor * len(tasks) <= 1:
        raise ValueError(f"floor: {floor} of each of {len(tasks)} tasks; allowed: 0 to 1 in all")
    needs = {task: (1 - score) ** strength for task, score in tasks.items()}
    total = sum(needs.values())
    rest = 1 - floor * len(tasks)
    return {
        task: round(floor + rest * (need / total if total else 1 / len(tasks)), DIGITS)
        for task, need in needs.items()
    }


def next_round(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    shares: Mapping[str, float],
    num_captions: int,
    *,
    balance: bool = True,
) -> dict[str, Any]:
    """Overrides of the run for its next round, from the student of this one.

    `balance`: the shares are those of all that the student is shown, not of the new captions alone.
    ValueError where the tasks are not those of the embedded world, whose grammar makes captions.
    """
    unknown = sorted(set(shares) - set(TASKS))
    if unknown:
        raise ValueError(
            f"feedback: no captions can be made for {unknown}; the grammar has {list(TASKS)}"
        )
    sources = config.captions.sources
    number = 1 + sum(source.name.startswith(f"{NAME}-") for source in sources)
    seeds = [source.seed for source in sources if isinstance(source, ShapesCaptions)]
    asked = ShapesCaptions(
        kind="shapes",
        name=f"{NAME}-{number}",
        num_captions=num_captions,
        seed=max(seeds, default=0) + SEED_APART,
        task_shares=dict(shares),
    )
    start = checkpoint_folder(config, upstream[student.STAGE], student.CHECKPOINT)
    return {
        "captions.sources": [each.model_dump(mode="json") for each in (*sources, asked)],
        "student.start": str(start),
        "student.task_shares": dict(shares) if balance else {},
    }
