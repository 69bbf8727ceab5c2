"""A Ray cluster that is running already: reached, looked at, and checked before it works for a run.

In:    where it is (`engine.ray`), what a shard or a process takes, what every node must have.
Out:   the nodes; for each that will not do one sentence, all of them in one `ValueError`.
Rerun: looks again; nothing is kept.

The only door to Ray. What runs on a node is a function of an importable module with plain values,
never a closure: nodes have the same code, the same folder to start from and the same root.
"""

import hashlib
import json
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import preflight
from pipeline.config import NodeShare, RunConfig
from pipeline.description import write_whole
from pipeline.disk import writing
from pipeline.maker import maker
from pipeline.roots import root_of
from pipeline.tables import Manifest

CHECK_SECONDS = 120.0  # a node's first process imports what the flow imports
ANSWER_SECONDS = 5.0
NODE = "LIGHTGEN_NODE"  # the environment of a process that works for a run on a node


@dataclass(frozen=True)
class Post:
    """What a node must have in common with the flow before it may work for it."""

    folder: str  # where relative paths of the run start
    root: str
    stage: str
    order: str  # a file of the root, by which a node knows it
    sha256: str
    maker: tuple[tuple[str, str], ...]  # code and packages: others may make other bytes
    api: str = ""  # the Prefect server; "" where nodes need none

    @property
    def path(self) -> Path:
        return root_of(self.root) / self.order


@contextmanager
def posted(
    config: RunConfig, upstream: Mapping[str, Manifest], stage: str, api: str = ""
) -> Iterator[Post]:
    """The order of a stage, in the root while the body runs: who can read it sees the root."""
    values = {
        "config": config.model_dump(mode="json"),
        "upstream": {name: manifest.to_json() for name, manifest in upstream.items()},
    }
    text = json.dumps(values).encode()
    order = f"launches/{stage}-{uuid4().hex}.json"
    post = Post(os.getcwd(), config.root, stage, order, _sum(text), _maker(), api)
    with writing(post.path):
        post.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(post.path, text)
    try:
        yield post
    finally:
        post.path.unlink(missing_ok=True)


# --- on a node ----------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def take_post(post: Post) -> tuple[RunConfig, dict[str, Manifest]]:
    """Work from here as the flow does, from its values; ValueError where this node cannot.

    The environment holds the node's name from here on.
    """
    os.environ[NODE] = platform.node()
    if complaints := "; ".join(complaints_of(post)):
        raise ValueError(f"engine.ray: node {here()} {complaints}")
    return _read(post)


def _read(post: Post) -> tuple[RunConfig, dict[str, Manifest]]:
    values = json.loads(post.path.read_bytes())
    upstream = {name: Manifest.from_json(value) for name, value in values["upstream"].items()}
    return RunConfig.model_validate(values["config"]), upstream


def here() -> str:
    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


def speak_on_own_address() -> None:
    """Let this process's collectives use the interface of the node's address."""
    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in {each.address for each in addresses}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def complaints_of(post: Post) -> list[str]:
    """What this node lacks, to be read after its name."""
    if not Path(post.folder).is_dir():
        return [f"has no folder {post.folder}, from which the flow works"]
    os.chdir(post.folder)
    found = []
    if not post.path.is_file():
        found.append(
            f"does not see the run's root {post.root}: mount the same folder there, or give the "
            "run a root that all nodes reach"
        )
    elif _sum(post.path.read_bytes()) != post.sha256:
        found.append(f"sees another {post.path} than the flow wrote: its root is another folder")
    if others := sorted(set(_maker()) - set(post.maker)):
        wanted = dict(post.maker)
        told = [f"{name} {own} (the flow: {wanted.get(name, 'none')})" for name, own in others]
        found.append(f"has other code or packages: {', '.join(told)}; use one image")
    if post.api and (why := _unreachable(post.api)):
        found.append(
            f"does not reach the Prefect server at {post.api} ({why}): bind it to an address that "
            "nodes reach, and set PREFECT_API_URL to it for the flow"
        )
    return found or preflight.missing(_read(post)[0], [post.stage])


def _maker() -> tuple[tuple[str, str], ...]:
    """An image without git knows no commit; the code is told by its content."""
    return tuple((name, fact) for name, fact in sorted(maker().items()) if name != "commit")


def _unreachable(api: str) -> str:
    try:
        httpx.get(f"{api}/health", timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return str(error) or type(error).__name__
    return ""


def _sum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


# --- in the flow --------------------------------------------------------------------------------


@contextmanager
def reached(address: str, enter: Callable[[], Any], leave: Callable[[], Any]) -> Iterator[None]:
    """Connected while the body runs; what nodes still do for this process ends with it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        enter()
    except (OSError, RuntimeError, RayError) as error:
        raise ValueError(
            f"engine.ray.address: no Ray cluster answers at {address!r} ({_first_line(error)}). "
            "Start one with: ray start --head (infra/README.md), or take another address"
        ) from error
    ours = handler not in (None, signal.SIG_DFL)
    if ours and threading.current_thread() is threading.main_thread():
        # Ray puts its own in place, which ends the process: the flow would not hear of its
        # cancellation.
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        leave()


def _knock(address: str) -> None:
    """OSError where nobody listens: Ray would try for minutes."""
    host, found, port = address.rpartition("://")[2].rpartition(":")
    if found:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def init_arguments(address: str) -> dict[str, Any]:
    """For `ray.init`; without an address it would quietly start a cluster of its own."""
    return {"address": address, "log_to_driver": True}


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
    nodes, wanted = [node for node in ray.nodes() if node["Alive"]], amounts(share)
    fit = [
        node
        for node in nodes
        if all(node["Resources"].get(name, 0) >= amount for name, amount in wanted.items())
    ]
    if not fit:
        has = "; ".join(f"{name_of(node)} {_has(node)}" for node in nodes)
        raise ValueError(f"{place}: {wanted} fits no node of the cluster, which has {has}")
    return fit


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


def check_nodes(nodes: Sequence[Mapping[str, Any]], post: Post) -> None:
    """ValueError with a sentence for each node that cannot work for this run."""
    look = ray.remote(num_cpus=0, max_retries=0)(complaints_of)
    asked = [(node, look.options(scheduling_strategy=_on(node)).remote(post)) for node in nodes]
    wrong = [f"node {name_of(node)} {said}" for node, ref in asked for said in _told(ref)]
    if wrong:
        raise ValueError("engine.ray: " + "; ".join(wrong))


def _on(node: Mapping[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)


def _told(ref: Any) -> list[str]:
    try:
        return list(ray.get(ref, timeout=CHECK_SECONDS))
    except GetTimeoutError:
        return [f"did not answer within {CHECK_SECONDS:.0f} s"]
    except RayError as error:  # it has not our code, or died
        words = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [f"cannot work: {words[-1]}"]


def first_done(refs: Sequence[Any]) -> Any:
    """The next of these that has an answer, or an error."""
    return ray.wait(list(refs), num_returns=1)[0][0]
