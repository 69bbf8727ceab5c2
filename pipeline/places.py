"""Where everything of a run lies below its root, and where a damaged file is moved to.

In:    the root, names.
Out:   paths; nothing is opened.
Rerun: `set_aside` never deletes: a file keeps its bytes under a new name in <root>/quarantine.
"""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from pipeline.buckets import BucketPath

LAST = 2**64 - 1  # Lance names a manifest LAST - version


def table_path(root: Path, name: str) -> Path:
    return root / "tables" / f"{name}.lance"


def data_file(root: Path, table: str, shard: str) -> Path:
    return table_path(root, table) / "data" / f"{shard}.lance"


def sum_file(root: Path, table: str, shard: str) -> Path:
    return table_path(root, table) / "sums" / f"{shard}.json"


def snapshot_file(root: Path, table: str, inputs: str) -> Path:
    return root / "snapshots" / f"{table}-{inputs}.json"


def tag_file(root: Path, table: str, inputs: str) -> Path:
    return table_path(root, table) / "_refs" / "tags" / f"{inputs}.json"


def version_file(root: Path, table: str, version: int) -> Path:
    return table_path(root, table) / "_versions" / f"{LAST - version}.manifest"


def versions(table: Path) -> list[int]:
    """Versions of a table that have a manifest, the newest first."""
    names = [manifest.stem for manifest in (table / "_versions").glob("*.manifest")]
    return sorted((LAST - int(name) for name in names if name.isdigit()), reverse=True)


def empty_manifests(table: Path) -> list[Path]:
    """A machine died while it wrote them; Lance does not open a table whose newest is empty."""
    manifests = sorted((table / "_versions").glob("*.manifest"))
    return [manifest for manifest in manifests if manifest.stat().st_size == 0]


def inside(root: Path, path: Path) -> Path:
    """The path, if it lies below the root as written: a record's words never lead out of it."""
    if isinstance(path, BucketPath):
        below = path.is_relative_to(root) and ".." not in path.parts
    else:
        below = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(root))
    if not below:
        raise ValueError(f"{path} is not below {root}: the record that names it is not ours")
    return path


def set_aside(root: Path, path: Path) -> Path:
    """Move a damaged file or folder to the quarantine; where it lies now."""
    inside(root, path)
    words = "--".join(path.relative_to(root).parts)
    place = root / "quarantine" / f"{uuid4().hex[:8]}--{words}"
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    return place


def remove(path: Path) -> None:
    """Delete a file or a folder with all that is in it; nothing where neither is there."""
    if isinstance(path, BucketPath):
        for below in path.rglob("*"):
            below.unlink()
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
