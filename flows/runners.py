"""Shards on the nodes of a Ray cluster, instead of one after the other in the flow's process.

In:    a stage and the shards to make, with `engine.task_runner: ray`.
Out:   each shard's state when its task has ended, for `flows.shards`; the commit stays with the
       flow.
Rerun: a shard whose node or process died is made again by Ray on another one; what was whole in
       the root is kept there, too.

A shard is a Prefect task that prefect-ray runs on a node: `make_on_node` is importable there and
gets names and numbers. Models are loaded once a process, as in the flow: a process stays for the
whole stage, and ends with it, so that the next stage has the device's memory.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from typing import Any, TypeAlias, cast

from prefect import State, Task, task
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options

from flows import stages  # noqa: F401  see below
from flows.shards import Ended, ShardStage, Tally, Values, task_values
from pipeline import cluster
from pipeline.config import RunConfig
from pipeline.credentials import mask_logs
from pipeline.posts import Post, posted
from pipeline.tables import Manifest, Work

# A node unpickles the flow's types by the module that made them first: `State[dict[str, Any]]` is
# to be that of `flows.stages` there, too, so it is imported before anything here makes one.
Told: TypeAlias = dict[str, Any]


def on_nodes(
    stage: ShardStage,
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    todo: Sequence[Work],
    tally: Tally,
) -> Iterator[Ended]:
    """Each shard's task when it has ended; ValueError before any work where a node cannot do it."""
    name, share = stage.STAGE, cluster.share_of(config, stage.STAGE)
    place, patience = f"engine.ray.stages.{name}", config.engine.ray.wait_seconds
    api = PREFECT_API_URL.value() or ""
    with _connected(config) as runner, posted(config, upstream, name, api) as post:
        nodes = cluster.check_nodes(cluster.fitting(place, share), post)
        names = ", ".join(map(cluster.name_of, nodes))
        get_run_logger().info("%s shards for %s nodes: %s", len(todo), len(nodes), names)
        one = task(name="make", **task_values(config))(make_on_node)
        with remote_options(**cluster.task_options(share, config.engine.ray.retries)):
            flying = {work.name: _submit(runner, one, stage, post, work) for work in todo}
        works = {flying[work.name].wrapped_future: work for work in todo}
        while works:
            work = works.pop(cluster.first_done(list(works), place, share, patience))
            future = flying.pop(work.name)
            future.wait()
            yield work, _told(future.state, work, tally)


def _told(state: State[Told], work: Work, tally: Tally) -> State[Values]:
    """The state with the shards alone; rows and seconds go to the tally."""
    if not state.is_completed():
        return cast(State[Values], state)
    told = state.result()
    if told["made"]:
        tally(work, work.rows)
        tally.seconds[work.name] = told["seconds"]
    return Completed(data=told["shards"])


@contextmanager
def _connected(config: RunConfig) -> Iterator[RayTaskRunner[Any]]:
    """prefect-ray's runner, which works with the connection that is there."""
    with cluster.reached(config.engine.ray.address), RayTaskRunner() as runner:
        yield runner


def _submit(
    runner: RayTaskRunner[Any],
    one: Task[..., Told],
    stage: ShardStage,
    post: Post,
    work: Work,
) -> Any:
    values = {"post": post, "stage": stage.__name__, "work": work}  # type: ignore[attr-defined]
    return runner.submit(one.with_options(name=f"make {work.name}"), values)


def make_on_node(post: Post, stage: str, work: Work) -> Told:
    """One shard's worth of work, in a process of a node; what it left and what it took."""
    logging.getLogger("pipeline").setLevel(logging.INFO)
    mask_logs()
    config, upstream = cluster.take_post(post)
    rows: list[int] = []
    started = time.monotonic()
    shards = import_module(stage).make(config, upstream, work, rows.append)
    return {
        "shards": [asdict(shard) for shard in shards],
        "made": bool(rows),
        "seconds": time.monotonic() - started,
    }
