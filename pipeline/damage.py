"""Damage: a file that is not what was written, what follows from it, and where it is moved.

In:    the place of a damaged file below a root.
Out:   a sentence on what the next run does; the file in <root>/quarantine, with what must not stand
       without it.
Rerun: what was moved is missing, so the next run makes it again.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.checkpoints import MANIFEST
from pipeline.checkpoints import RUN as RUN_VALUES
from pipeline.ledger import mend
from pipeline.places import set_aside, snapshot_file, sum_file
from pipeline.seals import sum_of, write_sealed
from pipeline.tables import committed

# A training is whole with these; its logs and samples only tell of it.
ESSENTIAL = ("final/", "untrained/", RUN_VALUES, MANIFEST)
AGAIN = {
    "data": "the next run makes this shard again",
    "sums": "its shard is summed again, or made again where no version names it",
    "_versions": "the next run commits this version again from the same shards",
    "_transactions": "nothing: only Lance's own history used it",
    "tags": "the next run tags this version again",
    "snapshots": "the next run finds the version and writes this again",
    "ledger": "written again from its copy, or by the next run where both are lost",
    "manifests": "the next run writes it again",
    "descriptions": "the next run describes the stage again",
    "readings": "the next run reads this part of its source again, where it reads sources",
    "state": "an unfinished training goes on from the state before it",
    "checkpoints": "the next run ends this training anew from its newest state",
    "log": "lost: it only tells of the training, whose weights are whole",
}


@dataclass(frozen=True)
class Damage:
    """One file that is not what was written."""

    place: str  # below the root
    what: str
    then: str  # what the next run does about it
    moved_to: str = ""


def again(place: str) -> str:
    """What the next run does without the file."""
    parts = place.split("/")
    if parts[0] == "tables":
        return AGAIN.get(parts[-2], AGAIN["_versions"])
    if parts[0] == "checkpoints":
        if parts[-1].startswith("state-"):
            return AGAIN["state"]
        return AGAIN["checkpoints" if _essential(place) else "log"]
    return AGAIN[parts[0]]


def _essential(place: str) -> bool:
    return place.split("/", 2)[2].startswith(ESSENTIAL)


def quarantined(root: Path, damage: Damage) -> Damage:
    """Move the file, and what must not stand without it, aside."""
    path, parts = root / damage.place, damage.place.split("/")
    if parts[0] == "descriptions":  # its pictures belong together
        path = root / parts[0] / parts[1]
    companions = []
    if parts[0] == "checkpoints":
        if parts[-1].startswith("state-"):
            companions.append(sum_of(path))
        elif _essential(damage.place):
            companions.append(root / parts[0] / parts[1] / MANIFEST)
    elif parts[0] == "readings":
        companions.append(sum_of(path))
    moved = str(set_aside(root, path)) if path.exists() else ""
    for companion in companions:
        if companion.exists():
            set_aside(root, companion)
    if parts[0] == "ledger":
        mend(root, path.stem)
    if parts[-2] == "sums":
        _state_again(root, parts[1].removesuffix(".lance"), path.stem)
    return Damage(damage.place, damage.what, damage.then, moved)


def _state_again(root: Path, table: str, name: str) -> None:
    """Write a lost sum of a shard that a version names: no teacher draws for a lost note."""
    for snapshot in committed(root, f"{table}-*"):
        for shard in snapshot.shards:
            if shard.name == name and snapshot_file(root, table, snapshot.tag).exists():
                write_sealed(sum_file(root, table, name), asdict(shard))
                return
