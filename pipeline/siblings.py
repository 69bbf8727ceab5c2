"""Trainings that differ in nothing but where they end: the longer goes on from the shorter.

In:    the folder of a training, and those of the same training that end elsewhere.
Out:   the newest state of theirs that is not beyond its own end, with the log and the looks so far.
Rerun: a folder that has a state of its own is left as it is.

A state that lies elsewhere already is linked: it takes no room a second time.
"""

import os
import shutil
from pathlib import Path

from pipeline.checkpoints import CURVE, SAMPLES, Log, TrainingFolder
from pipeline.records import LOG
from pipeline.seals import sum_of
from pipeline.states import saved, step_of


def go_on_from_alike(
    place: TrainingFolder, phase: str, end: int, seen: int, batch_size: int
) -> Path | None:
    """Give `phase` of `place` a state of at most `end` steps; the one taken, None without any.

    `seen`: samples of the phases before.
    """
    folder = place.path / phase
    if saved(folder):
        return None
    there = [s for other in place.alike() for s in saved(other / phase) if step_of(s) <= end]
    if not there:
        return None
    newest = max(there, key=step_of)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(newest.parent / LOG, folder / LOG)
    _take_looks(newest.parent.parent, place.path, seen + step_of(newest) * batch_size)
    # The sum before the state: a state that has its name has its sum.
    shutil.copyfile(sum_of(newest), sum_of(folder / newest.name))
    os.link(newest, folder / newest.name)
    return newest


def _take_looks(other: Path, own: Path, seen: int) -> None:
    if (other / CURVE).is_file():
        shutil.copyfile(other / CURVE, own / CURVE)
        Log(own / CURVE, seen, key="samples")  # drops what comes after
        shutil.copytree(other / SAMPLES, own / SAMPLES, dirs_exist_ok=True)
