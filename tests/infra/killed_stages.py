"""Makes the data stages of the run `models`, in a process of its own, for `test_kills.py`.

Notes every shard that it works on in <root>/worked, a line each: the stage and the shard. In the
middle of the second shard of the stage named it dies as by `kill -9`; with "" it goes to the end.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import FluxPipeline  # noqa: F401  # here, so that all processes share the import

import pipeline.judges.qwen_vl
import pipeline.teachers.diffusers  # noqa: F401
from pipeline import captions, features, images, verdicts
from pipeline.config import RunConfig, load_run
from pipeline.tables import Manifest


class Watch:
    def __init__(self, config: RunConfig, stage: str) -> None:
        self.file, self.stage = Path(config.root) / "worked", stage
        self.seen: set[str] = set()

    def note(self, stage: str, shard: str) -> None:
        """Rows of a shard were given to its writer; its file is not there yet."""
        line = f"{stage} {shard}\n"
        if line not in self.seen:
            self.seen.add(line)
            with self.file.open("a") as file:
                file.write(line)
        if stage == self.stage and sum(one.startswith(stage) for one in self.seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def go(config: RunConfig, watch: Watch) -> None:
    upstream: dict[str, Manifest] = {}
    for stage in (captions, images, verdicts, features):
        name = stage.STAGE
        shards = [
            shard
            for work in stage.plan(config, upstream)
            for shard in stage.make(
                config, upstream, work, lambda _, name=name, work=work: watch.note(name, work.name)
            )
        ]
        upstream[name] = stage.commit(config, upstream, shards)


def make(overrides: Mapping[str, Any], killed_in: str) -> None:
    run = load_run("models", overrides)
    Path(run.root).mkdir(parents=True, exist_ok=True)
    go(run, Watch(run, killed_in))
