"""What stage flows hand each other: the name of a manifest's file, never the manifest itself.

In:    a stage's manifest and what its run took.
Out:   one small JSON value; the manifest lies under <root>/manifests.
Rerun: the same manifest has the same name.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from pipeline.config import RunConfig
from pipeline.description import Timing, write_whole
from pipeline.disk import writing
from pipeline.roots import root_of
from pipeline.snapshots import Manifest, manifest_name, manifest_text
from pipeline.upstream import resolve

Handed: TypeAlias = dict[str, Any]


def above(
    config: RunConfig, stage: str, upstream: Mapping[str, Handed] | None
) -> dict[str, Manifest]:
    """The manifests that the parent handed over or, called alone, those the run has on disk."""
    if upstream is None:
        return dict(resolve(config, stage))
    return {name: manifest_of(config, handed) for name, handed in upstream.items()}


def hand_on(config: RunConfig, manifest: Manifest, timing: Timing | None = None) -> Handed:
    """A flow's parameters must stay small (512 KB), a manifest lists every shard: it is a file."""
    name = manifest_name(manifest)
    path = root_of(config.root) / "manifests" / f"{name}.json"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, manifest_text(manifest).encode())
    return {
        "manifest": name,
        "tables": {
            key: {"table": each.table, "version": each.version, "rows": each.rows}
            for key, each in manifest.snapshots.items()
        },
        "checkpoints": manifest.checkpoints,
        "timing": asdict(timing) if timing else None,
    }


def manifest_of(config: RunConfig, handed: Handed) -> Manifest:
    path = root_of(config.root) / "manifests" / f"{handed['manifest']}.json"
    return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
