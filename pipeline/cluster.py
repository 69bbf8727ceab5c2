"""A Ray cluster that is running already: reached, looked at, and checked before it works for a run.

In:    where it is (`engine.ray`), what a shard or a process takes, what every node must have.
Out:   the nodes; for each that will not do one sentence, all of them in one `ValueError`.
Rerun: looks again; nothing is kept.

The only door to Ray. What runs on a node is a function of an importable module with plain values,
never a closure: nodes have the same code, the same folder to start from and the same root.
"""

import os
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from pipeline import preflight
from pipeline.addresses import unreachable
from pipeline.config import NodeShare, RunConfig
from pipeline.posts import Post, complaints_of, read
from pipeline.tables import Manifest

CHECK_SECONDS = 120.0  # a node's first process imports what the flow imports
LOOK_SECONDS = 5.0  # between two looks at who is there
NODE = "LIGHTGEN_NODE"  # the environment of a process that works for a run on a node


# --- on a node ----------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def take_post(post: Post) -> tuple[RunConfig, dict[str, Manifest]]:
    """Work from here as the flow does, from its values; ValueError where this node cannot.

    The environment holds the node's name from here on.
    """
    os.environ[NODE] = platform.node()
    if complaints := "; ".join(complaints_of(post)):
        raise ValueError(f"engine.ray: node {here()} {complaints}")
    return read(post)


def here() -> str:
    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


def speak_on_own_address() -> None:
    """Let this process's collectives use the interface of the node's address."""
    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in {each.address for each in addresses}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


# --- in the flow --------------------------------------------------------------------------------


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Connected while the body runs; what nodes still do for this process ends with it."""
    handler = signal.getsignal(signal.SIGTERM)
    if said := unreachable(address):
        raise ValueError(said)
    try:
        _enter(address)
    except (OSError, RuntimeError, RayError) as error:
        raise ValueError(
            f"engine.ray.address: the Ray cluster at {address!r} does not take this process in "
            f"({_one_line(error)}). Both need one Ray, one Python and one RAY_AUTH_TOKEN; ports "
            "are 6379 for a node and 10001 for ray://, unless ray start was told otherwise"
        ) from error
    ours = handler not in (None, signal.SIG_DFL)
    if ours and threading.current_thread() is threading.main_thread():
        # Ray puts its own in place, which ends the process: the flow would not hear of its
        # cancellation.
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


# The head begins a process for each client, by a fork beside the threads of gRPC. That process has
# died of it (Ray 2.60); the next one does not.
@retry(
    retry=retry_if_exception_type(ConnectionAbortedError),
    stop=stop_after_attempt(3),
    wait=wait_fixed(2),
    reraise=True,
)
def _enter(address: str) -> None:
    """Without an address Ray would quietly start a cluster of its own."""
    ray.init(address=address)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def share_of(config: RunConfig, stage: str) -> NodeShare:
    """What one shard or process of a stage takes, GPUs counted."""
    given = {str(name): each for name, each in config.engine.ray.stages.items()}
    share = given.get(stage, NodeShare())
    if share.num_gpus is not None:
        return share
    works_on_gpu = config.device == "cuda" and stage in preflight.ON_DEVICE
    return share.model_copy(update={"num_gpus": 1.0 if works_on_gpu else 0.0})


def amounts(share: NodeShare) -> dict[str, float]:
    """By Ray's names of what a node has."""
    wanted = {"CPU": share.num_cpus, "GPU": share.num_gpus or 0.0, **share.resources}
    return {name: amount for name, amount in wanted.items() if amount}


def task_options(share: NodeShare, retries: int) -> dict[str, Any]:
    """For `ray.remote`: what a shard takes, and how often it is made again when its node dies."""
    return {
        "num_cpus": share.num_cpus,
        "num_gpus": share.num_gpus,
        "resources": share.resources,
        "max_retries": retries,
        # Ray would end a process with a GPU after each shard, and its model with it.
        "max_calls": 0,
    }


def fitting(place: str, share: NodeShare) -> list[dict[str, Any]]:
    """The living nodes that can hold a share; ValueError where none can: Ray would wait for one."""
    fit = fits(share)
    if not fit:
        has = "; ".join(f"{name_of(node)} {_has(node)}" for node in _living())
        raise ValueError(f"{place}: {amounts(share)} fits no node of the cluster, which has {has}")
    return fit


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def fits(share: NodeShare) -> list[dict[str, Any]]:
    """The living nodes that can hold a share."""
    wanted = amounts(share)
    return [
        node
        for node in _living()
        if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())
    ]


def room(node: Mapping[str, Any], share: NodeShare) -> int:
    """Shares that a node holds when it does nothing else."""
    wanted = amounts(share)
    return min((int(node["Resources"].get(name, 0) // n) for name, n in wanted.items()), default=1)


def name_of(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _has(node: Mapping[str, Any]) -> dict[str, float]:
    """What can be asked for; not its memory, nor its address."""
    hidden = ("node:", "memory", "object_store_memory")
    return {name: n for name, n in node["Resources"].items() if not name.startswith(hidden)}


def check_nodes(nodes: Sequence[Mapping[str, Any]], post: Post) -> list[Mapping[str, Any]]:
    """Those that still live; ValueError with a sentence for each that cannot work for this run."""
    look = ray.remote(num_cpus=0, max_retries=0)(complaints_of)
    asked = [(node, look.options(scheduling_strategy=_on(node)).remote(post)) for node in nodes]
    # The others do the work of one that died since they were counted, as if it had died later.
    told = [(node, said) for node, ref in asked if (said := _told(ref, node)) is not None]
    wrong = [f"node {name_of(node)} {line}" for node, said in told for line in said]
    if wrong:
        raise ValueError("engine.ray: " + "; ".join(wrong))
    return [node for node, _ in told]


def _gone(node: Mapping[str, Any]) -> bool:
    end = time.monotonic() + LOOK_SECONDS  # Ray tells of a death here and there, not all at once
    while node["NodeID"] in {each["NodeID"] for each in _living()}:
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_SECONDS / 10)
    return True


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _told(ref: Any, node: Mapping[str, Any]) -> list[str] | None:
    """What a node complains of; None where it died."""
    try:
        return list(ray.get(ref, timeout=CHECK_SECONDS))
    except GetTimeoutError:
        return [f"did not answer within {CHECK_SECONDS:.0f} s"]
    except RayError as error:
        if not isinstance(error, RayTaskError) and _gone(node):
            return None
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [f"cannot work: {words[-1]}"]  # it has not our code, or does not start processes


def first_done(refs: Sequence[Any], place: str, share: NodeShare, wait_seconds: float) -> Any:
    """The next of these that has an answer, or an error.

    ValueError when for `wait_seconds` no node was there that could give one.
    """
    since = time.monotonic()
    while True:
        done, _ = ray.wait(list(refs), num_returns=1, timeout=LOOK_SECONDS)
        if done:
            return done[0]
        if fits(share):
            since = time.monotonic()
        elif time.monotonic() - since > wait_seconds:
            try:
                fitting(place, share)
            except ValueError as error:
                raise ValueError(f"{error}{waited(wait_seconds)}") from None


def waited(seconds: float) -> str:
    return (
        f", and no other one came within {seconds:g} s (engine.ray.wait_seconds): bring nodes "
        "back, and run the same command again; what is whole is kept"
    )
