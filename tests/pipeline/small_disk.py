"""Run by test_disk.py in a mount namespace: stages and a training on a disk that is too small.

In:    an empty small file system, and what to try.
Out:   lines for the test to read.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from pipeline import captions, images
from pipeline.config import RunConfig, load_run
from pipeline.disk import DiskRefused
from pipeline.preflight import check_root
from pipeline.tables import read
from tests.pipeline.conftest import VALUES, make_stage


def run_in(folder: Path) -> RunConfig:
    changed = {"captions": VALUES["captions"] | {"rows_per_shard": 6}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(VALUES | changed | {"root": str(folder / "root")}, file)
        file.flush()
        return load_run(file.name, {"images.image_sizes": [64, 256]})


def sums(config: RunConfig) -> dict[str, str]:
    files = Path(config.root).glob("tables/*/data/*.lance")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(act: Callable[[], object]) -> None:
    try:
        act()
    except DiskRefused as error:
        print(f"refused: {error}")
    else:
        print("not refused")


def both(config: RunConfig) -> list[str]:
    above, _ = make_stage(captions, config, {})
    return make_stage(images, config, {"captions": above})[1]


def tables(disk: Path) -> None:
    config = run_in(disk)
    refused(lambda: both(config))
    left = [*Path(config.root).rglob(".*.part"), *Path(config.root).rglob(".tmp*")]
    print(f"leftovers: {len(left)}")
    kept = len(list(Path(config.root).glob("tables/images-*/data/*.lance")))
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    made = both(config)
    print(f"kept: {kept}\nmade: {len(made)}")
    with tempfile.TemporaryDirectory() as large:
        other = run_in(Path(large))
        both(other)
        print(f"the same bytes as on a large disk: {sums(other) == sums(config)}")


def training(disk: Path) -> None:
    from pipeline.parallel import Weights
    from pipeline.states import saved
    from tests.pipeline.test_training import train

    def go_on(folder: Path) -> Weights:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return train(folder, steps=80, keep_last=80)

    refused(lambda: go_on(disk / "training"))
    print(f"states kept: {bool(saved(disk / 'training'))}")
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    resumed = go_on(disk / "training")
    with tempfile.TemporaryDirectory() as large:
        whole = go_on(Path(large))
        same = all(bool((resumed[name] == whole[name]).all()) for name in whole)
        print(f"the same weights as on a large disk: {same}")


def read_only(disk: Path) -> None:
    config = run_in(disk)
    above, _ = make_stage(captions, config, {})
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused(lambda: check_root(config))
    refused(lambda: make_stage(images, config, {"captions": above}))
    print(f"read: {len(read(config.root, above.snapshots['captions'])) > 0}")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    print(f"then made: {bool(make_stage(images, config, {'captions': above})[1])}")


if __name__ == "__main__":
    acts = {"tables": tables, "training": training, "read-only": read_only}
    acts[sys.argv[2]](Path(sys.argv[1]))
