"""Emphasis: how much of each task a student is shown, where it is not what the data has.

In:    `captions`, `features_<px>`, the captions that are kept, and `student.task_shares`.
Out:   groups of rows with their shares, for `pipeline.orders`; a share of a task is one of all
       pictures shown, whichever source their captions are of.
Rerun: the same tables and values give the same groups.

Nothing is drawn or encoded again: rows of a task come more or less often.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import RunConfig
from pipeline.orders import Group
from pipeline.subsets import accepted
from pipeline.tables import Manifest, read
from pipeline.tasks import task_of


@dataclass(frozen=True)
class Emphasis:
    shares: Mapping[str, float]  # task to its share; of any sum
    tasks: Mapping[str, str]  # caption id to its task

    def groups(self, captions: Sequence[str]) -> tuple[Group, ...]:
        """Places among `captions`, a caption id a row, by task.

        ValueError for a share of a task that none of them asks for.
        """
        tasks = np.array([self.tasks[each] for each in captions])
        places = {task: np.flatnonzero(tasks == task) for task in self.shares}
        missing = [task for task, share in self.shares.items() if share and not len(places[task])]
        if missing:
            raise ValueError(
                f"student.task_shares: no picture to learn from asks for {missing}; there are "
                f"{sorted(set(tasks.tolist()))}"
            )
        total = sum(self.shares.values())
        return tuple(
            Group(places[task], share / total) for task, share in self.shares.items() if share
        )


def emphasis_of(
    config: RunConfig, upstream: Mapping[str, Manifest], kept: Collection[str] | None
) -> Emphasis | None:
    """Of the captions of the run; None where it has no shares.

    ValueError before training where any phase lacks pictures of a task that has a share.
    """
    assert config.student is not None
    shares = config.student.task_shares
    if not shares:
        return None
    features = upstream["features"].snapshots
    captions = upstream["captions"].snapshots["captions"]
    ids, texts = accepted(config.root, features["text"], captions)
    found = Emphasis(shares, dict(zip(ids, map(task_of, texts), strict=True)))
    for size in dict.fromkeys(phase.image_size for phase in config.student.trained):
        table = read(config.root, features[f"features_{size}"], ["caption_id"], check=False)
        every = table["caption_id"].to_pylist()
        found.groups([each for each in every if kept is None or each in kept])
    return found
