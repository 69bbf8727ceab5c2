"""A training whose processes are on any nodes of a Ray cluster, through Ray Train.

`python -m pipeline.cluster_training --program pretraining --config F --upstream F`

In:    the program, which is one of those that torchrun starts on one machine; its two files in the
       run's root; `engine.ray` of the run: where the cluster is and what a process takes.
Out:   what the program leaves. Its lines come out here.
Rerun: goes on from the last saved step. So does Ray Train by itself when a node or a process dies,
       `engine.ray.retries` times; what the program refuses for a reason is not tried again.

Ray Train makes the process group; `accelerate` finds it and behaves as under torchrun.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRun
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline import cluster, preflight
from pipeline.config import LoopConfig, RunConfig, load_run
from pipeline.disk import DiskRefused, writing
from pipeline.pretraining import read_upstream
from pipeline.roots import root_of

# What each program trains, and the stage whose share of a node a process takes.
PROGRAMS = {"pretraining": ("train_student", "student"), "aligning": ("align_student", "dpo")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on the nodes of a Ray cluster.")
    parser.add_argument("--program", choices=sorted(PROGRAMS), required=True)
    parser.add_argument("--config", type=Path, required=True, help="the run, a YAML file")
    parser.add_argument("--upstream", type=Path, required=True, help="manifests, a JSON file")
    args = parser.parse_args()
    config, upstream = load_run(args.config), read_upstream(args.upstream)
    address, stage = config.engine.ray.address, PROGRAMS[args.program][1]
    arguments = cluster.init_arguments(address)
    with (
        cluster.reached(address, lambda: ray.init(**arguments), ray.shutdown),
        cluster.posted(config, upstream, stage) as post,
    ):
        refused = _refused(post)
        try:
            trainer_of(config, args.program, post).fit()
            if refused.is_file():
                sys.exit(refused.read_text(encoding="utf-8"))
        finally:
            refused.unlink(missing_ok=True)


def trainer_of(config: RunConfig, program: str, post: cluster.Post) -> TorchTrainer:
    """Ready to fit; ValueError where the cluster has no room or a node cannot work for the run."""
    stage = PROGRAMS[program][1]
    share = cluster.share_of(config, stage)
    loop: LoopConfig = getattr(config, preflight.SECTIONS[stage])
    nodes = cluster.fitting(f"engine.ray.stages.{stage}", share)
    room = sum(cluster.room(node, share) for node in nodes)
    if room < loop.num_processes:
        raise ValueError(
            f"{preflight.SECTIONS[stage]}.num_processes: {loop.num_processes}, but the cluster has "
            f"room for {room} of {cluster.amounts(share)} each (engine.ray.stages.{stage})"
        )
    cluster.check_nodes(nodes, post)
    return TorchTrainer(
        work,
        train_loop_config={
            "post": post,
            "program": program,
            "threads": max(1, int(share.num_cpus)),
        },
        torch_config=Addressed(),
        scaling_config=ScalingConfig(
            num_workers=loop.num_processes,
            use_gpu=bool(share.num_gpus),
            resources_per_worker=cluster.amounts(share),
        ),
        run_config=TrainRun(
            name=post.path.stem,
            # Ray Train's own notes; states and weights are where the program puts them.
            storage_path=str((post.path.parent / "ray").absolute()),
            failure_config=FailureConfig(max_failures=config.engine.ray.retries),
        ),
    )


def _refused(post: cluster.Post) -> Path:
    return post.path.with_suffix(".refused.txt")


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
    post: cluster.Post = order["post"]
    config, upstream = cluster.take_post(post)
    if _refused(post).is_file():  # started once more only because another process refused
        return
    torch.set_num_threads(order["threads"])  # as torchrun does: sums depend on it
    train = getattr(import_module(f"pipeline.{order['program']}"), PROGRAMS[order["program"]][0])
    try:
        with writing(root_of(config.root)):
            train(config, upstream)
    except (DiskRefused, ValueError) as error:
        _refused(post).write_text(f"{error}\n", encoding="utf-8")
        raise


if __name__ == "__main__":
    # By its name: a node imports what it runs, and cannot import `__main__`.
    import_module("pipeline.cluster_training").main()
