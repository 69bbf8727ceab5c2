"""The values that stages hand each other: what a table, a shard, a version and a manifest are.

In:    a contract, what was written under it.
Out:   frozen values that survive JSON. Light: Lance is not imported.
Rerun: equal contents have equal digests, whoever made them.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.seals import digest


@dataclass(frozen=True)
class Table:
    """The contract of a table. `version` is raised by hand when the code makes other rows."""

    name: str
    version: int
    schema: pa.Schema


@dataclass(frozen=True)
class Shard:
    """One data file of a table."""

    name: str
    rows: int
    sha256: str
    size: int
    table: str = ""  # the table's folder name, without its ending


@dataclass(frozen=True)
class Snapshot:
    """A table at a version. `content` is equal exactly when the data files and their order are."""

    table: str
    version: int
    tag: str
    content: str
    rows: int
    shards: tuple[Shard, ...]

    @property
    def label(self) -> str:
        return f"{self.table} @ version {self.version}"

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Snapshot":
        return Snapshot(**values | {"shards": tuple(Shard(**shard) for shard in values["shards"])})


@dataclass(frozen=True)
class Work:
    """One shard's worth of work; `name` derives from what it reads."""

    name: str
    sources: tuple[str, ...] = ()
    first: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a stage left: tables at versions, checkpoints as folders relative to the root."""

    stage: str
    content: str
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(stage: str, snapshots: dict[str, Snapshot], reading: object = None) -> "Manifest":
        """`reading`: values that change what the rows mean to later stages, but not the rows."""
        contents = {name: snapshot.content for name, snapshot in snapshots.items()}
        content = digest(contents if reading is None else [contents, reading])
        return Manifest(stage, content, snapshots)

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Manifest":
        snapshots = {name: Snapshot.from_json(v) for name, v in values["snapshots"].items()}
        return Manifest(values["stage"], values["content"], snapshots, dict(values["checkpoints"]))


def manifest_text(manifest: Manifest) -> str:
    """The file of a manifest, which is named by what it holds."""
    return json.dumps(manifest.to_json(), indent=1)


def manifest_name(manifest: Manifest) -> str:
    total = hashlib.sha256(manifest_text(manifest).encode()).hexdigest()
    return f"{manifest.stage}-{total[:16]}"
