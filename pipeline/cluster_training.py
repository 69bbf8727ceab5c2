"""A training whose processes are on any nodes of a Ray cluster, through Ray Train.

`python -m pipeline.cluster_training --program pretraining --config F --upstream F`

In:    the program, which is one of those that torchrun starts on one machine; its two files in the
       run's root; `engine.ray` of the run: where the cluster is and what a process takes.
Out:   what the program leaves. Its lines come out here.
Rerun: goes on from the last saved step. So it does by itself when a node or a process dies,
       `engine.ray.retries` times: where there is room for all processes, else when a node came
       within `engine.ray.wait_seconds`, else with fewer, where `engine.ray.min_processes` allows.
       What the program refuses for a reason is not tried again. SIGTERM reaches the processes by a
       file of the root: they save their step and leave, as under torchrun.

Ray Train makes the process group; `accelerate` finds it and behaves as under torchrun.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRun
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from pipeline import alignment, cluster, preflight, student
from pipeline.config import LoopConfig, RunConfig, load_run
from pipeline.credentials import mask_logs
from pipeline.disk import DiskRefused, writing
from pipeline.posts import Post, posted
from pipeline.pretraining import read_upstream
from pipeline.roots import near, root_of
from pipeline.stopping import LEFT, SECONDS_TO_LEAVE, alone, listening
from pipeline.tables import Manifest

# What each program trains, and the stage whose share of a node a process takes.
PROGRAMS = {"pretraining": ("train_student", "student"), "aligning": ("align_student", "dpo")}
FOLDERS = {"student": student.folder, "dpo": alignment.folder}
PATIENCE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # by which Ray Train is told of ours
# How Ray Train names what became of processes that it wanted to start.
NO_ROOM, NOT_STARTED = "WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError"


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on the nodes of a Ray cluster.")
    parser.add_argument("--program", choices=sorted(PROGRAMS), required=True)
    parser.add_argument("--config", type=Path, required=True, help="the run, a YAML file")
    parser.add_argument("--upstream", type=Path, required=True, help="manifests, a JSON file")
    args = parser.parse_args()
    config, upstream = load_run(args.config), read_upstream(args.upstream)
    try:
        run(config, args.program, upstream)
    except ValueError as error:
        sys.exit(str(error))


def run(config: RunConfig, program: str, upstream: Mapping[str, Manifest]) -> None:
    """The training to its end; ValueError where nodes, room or the program refuse it."""
    stage = PROGRAMS[program][1]
    with (
        alone(FOLDERS[stage](config, upstream).path),
        cluster.reached(config.engine.ray.address),
        posted(config, upstream, stage) as post,
    ):
        refused, word = _refused(post), _word(post)
        signal.signal(signal.SIGTERM, partial(_say, word))
        try:
            train(config, program, post)
            if refused.is_file():
                raise ValueError(refused.read_text(encoding="utf-8").strip())
            if word.is_file():
                sys.exit(LEFT)
        finally:
            for path in (refused, word):
                path.unlink(missing_ok=True)


def _say(word: Path, _signal: int, _frame: FrameType | None) -> None:
    """Once; whoever has not left by then is ended with this process."""
    if not word.is_file():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS_TO_LEAVE)
        word.write_text("leave", encoding="utf-8")


def train(config: RunConfig, program: str, post: Post) -> None:
    """Fit with all processes; where there is no longer room for them, with as many as there is."""
    values, stage = config.engine.ray, PROGRAMS[program][1]
    check_room(config, stage)
    cluster.check_nodes(cluster.fitting(_place(stage), cluster.share_of(config, stage)), post)
    os.environ[PATIENCE] = str(values.wait_seconds)
    loop, not_started = _loop(config, stage), 0
    while True:
        try:
            trainer_of(config, program, post, loop).fit()
            return
        except ControllerError as error:
            kind = type(error.controller_failure).__name__
            not_started += kind == NOT_STARTED  # its node died meanwhile
            if kind == NO_ROOM:
                loop = fewer(config, stage, loop, room_of(config, stage))
                print(f"goes on with {loop.num_processes} processes", flush=True)
            elif kind != NOT_STARTED or not_started > values.retries:
                raise
        except WorkerGroupError as error:
            print(error, flush=True)
            raise ValueError(_gave_up(error, values.retries)) from error


def _gave_up(error: WorkerGroupError, retries: int) -> str:
    rank, failure = next(iter(sorted(error.worker_failures.items())))
    words = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return (
        f"process {rank} ended before the training did, and {retries} further tries "
        f"(engine.ray.retries) ended alike: {words[-1]}"
    )


def _loop(config: RunConfig, stage: str) -> LoopConfig:
    loop: LoopConfig = getattr(config, preflight.SECTIONS[stage])
    return loop


def _place(stage: str) -> str:
    return f"engine.ray.stages.{stage}"


def room_of(config: RunConfig, stage: str) -> int:
    """Processes of a training that the living nodes hold."""
    share = cluster.share_of(config, stage)
    return sum(cluster.room(node, share) for node in cluster.fits(share))


def check_room(config: RunConfig, stage: str) -> None:
    """ValueError where the cluster as it is holds too few processes."""
    share, loop = cluster.share_of(config, stage), _loop(config, stage)
    cluster.fitting(_place(stage), share)
    if (room := room_of(config, stage)) < loop.num_processes:
        raise ValueError(_too_small(config, stage, room))


def _too_small(config: RunConfig, stage: str, room: int) -> str:
    share, loop = cluster.share_of(config, stage), _loop(config, stage)
    taken = ", which others use" if room >= loop.num_processes else ""
    return (
        f"{preflight.SECTIONS[stage]}.num_processes: {loop.num_processes}, but the cluster has "
        f"room for {room} of {cluster.amounts(share)} each ({_place(stage)}){taken}"
    )


def fewer(config: RunConfig, stage: str, now: LoopConfig, room: int) -> LoopConfig:
    """The loop with the most processes, fewer than now, that there is room for.

    They share the parts of a batch evenly: those stay as they are, and so does what is random in
    each. ValueError where `engine.ray.min_processes` does not allow so few.
    """
    values = config.engine.ray
    able = [n for n in range(1, now.num_processes) if n <= room and now.parts % n == 0]
    if values.min_processes is None or not able or able[-1] < values.min_processes:
        asked = "" if values.min_processes is None else f", min_processes {values.min_processes}"
        raise ValueError(
            f"{_too_small(config, stage, room)}{asked}{cluster.waited(values.wait_seconds)}"
        )
    return now.model_copy(update={"num_processes": able[-1], "accumulation": now.parts // able[-1]})


def trainer_of(config: RunConfig, program: str, post: Post, loop: LoopConfig) -> TorchTrainer:
    """Ready to fit with the processes of `loop`."""
    stage = PROGRAMS[program][1]
    share = cluster.share_of(config, stage)
    return TorchTrainer(
        work,
        train_loop_config={
            "post": post,
            "program": program,
            "threads": max(1, int(share.num_cpus)),
            "processes": loop.num_processes,
            "accumulation": loop.accumulation,
        },
        torch_config=Addressed(),
        scaling_config=ScalingConfig(
            num_workers=loop.num_processes,
            use_gpu=bool(share.num_gpus),
            resources_per_worker=cluster.amounts(share),
        ),
        run_config=TrainRun(
            name=post.path.stem,
            # Ray Train's own notes, which nobody reads; states and weights are where the program
            # puts them.
            storage_path=str(Path(tempfile.gettempdir()) / "lightgen-ray"),
            failure_config=FailureConfig(
                max_failures=config.engine.ray.retries, controller_failure_limit=0
            ),
        ),
    )


def _refused(post: Post) -> Path:
    return post.path.with_suffix(".refused.txt")


def _word(post: Post) -> Path:
    return post.path.with_suffix(".leave.txt")


class _OnNodesAddress(TorchConfig().backend_cls):  # type: ignore[misc]
    """Gloo listens where the machine's name leads: often 127.0.0.1, which no other reaches."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(cluster.speak_on_own_address)
        super().on_start(worker_group, backend_config)


class Addressed(TorchConfig):  # type: ignore[misc]
    """Ray Train's process group, over the interface that a node's address belongs to."""

    @property
    def backend_cls(self) -> type[_OnNodesAddress]:
        return _OnNodesAddress


# --- in a process of a node ---------------------------------------------------------------------


def work(order: dict[str, Any]) -> None:
    """One process of the training. A refusal is written down, and ends all of them."""
    post: Post = order["post"]
    mask_logs()
    config, upstream = cluster.take_post(post)
    section = preflight.SECTIONS[PROGRAMS[order["program"]][1]]
    counts = {"num_processes": order["processes"], "accumulation": order["accumulation"]}
    loop = getattr(config, section).model_copy(update=counts)
    config = config.model_copy(update={section: loop})
    if _refused(post).is_file():  # started once more only because another process refused
        return
    torch.set_num_threads(order["threads"])  # as torchrun does: sums depend on it
    train = getattr(import_module(f"pipeline.{order['program']}"), PROGRAMS[order["program"]][0])
    try:
        with writing(near(root_of(config.root))), listening(_word(post)):
            train(config, upstream)
    except SystemExit as left:  # told to; to Ray Train a process that exits is one that died
        if left.code != LEFT:
            raise
    except (DiskRefused, ValueError) as error:
        _refused(post).write_text(f"{error}\n", encoding="utf-8")
        raise


if __name__ == "__main__":
    # By its name: a node imports what it runs, and cannot import `__main__`.
    import_module("pipeline.cluster_training").main()
