"""What a node must have in common with the flow before it may work for it, and what it lacks.

In:    a run, its manifests above a stage, the Prefect server's address.
Out:   a file of the root with their values, for as long as the stage works; a node that reads it
       sees the root. What a node lacks is one sentence each, to be read after its name.
Rerun: posts anew; what a killed flow left in <root>/launches hinders nobody.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx

from pipeline import preflight
from pipeline.addresses import ANSWER_SECONDS
from pipeline.buckets import StoreRefused
from pipeline.config import RunConfig
from pipeline.description import write_whole
from pipeline.disk import writing
from pipeline.maker import maker
from pipeline.roots import root_of
from pipeline.tables import Manifest


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


def read(post: Post) -> tuple[RunConfig, dict[str, Manifest]]:
    values = json.loads(post.path.read_bytes())
    upstream = {name: Manifest.from_json(value) for name, value in values["upstream"].items()}
    return RunConfig.model_validate(values["config"]), upstream


def complaints_of(post: Post) -> list[str]:
    """What this node lacks, to be read after its name."""
    if not Path(post.folder).is_dir():
        return [f"has no folder {post.folder}, from which the flow works"]
    os.chdir(post.folder)
    found = []
    if unseen := _unseen(post):
        found.append(unseen)
    if others := sorted(set(_maker()) - set(post.maker)):
        wanted = dict(post.maker)
        told = [f"{name} {own} (the flow: {wanted.get(name, 'none')})" for name, own in others]
        found.append(f"has other code or packages: {', '.join(told)}; use one image")
    if post.api and (why := _unreachable(post.api)):
        found.append(
            f"does not reach the Prefect server at {post.api} ({why}): bind it to an address that "
            "nodes reach, and set PREFECT_API_URL to it for the flow"
        )
    return found or preflight.missing(read(post)[0], [post.stage])


def _unseen(post: Post) -> str:
    """What is wrong with this node's view of the root."""
    try:
        if not post.path.is_file():
            return (
                f"does not see the run's root {post.root}: mount the same folder there, or give "
                "the run a root that all nodes reach"
            )
        if _sum(post.path.read_bytes()) != post.sha256:
            return f"sees another {post.path} than the flow wrote: its root is another folder"
    except StoreRefused as error:
        return (
            f"cannot read the run's root ({error}): it needs the environment that a root in a "
            "bucket needs (infra/README.md) where its ray start is said"
        )
    return ""


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
