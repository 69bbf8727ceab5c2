"""Small records on disk: JSON that appears by rename, flushed, with its own checksum inside.

In:    plain values.
Out:   a file whose "seal" is the sha256 of the rest, so that one flipped bit is seen.
Rerun: writing again replaces the file. Reading gives None for a file that is not what was written:
       never a guess.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.buckets import BucketPath
from pipeline.disk import writing

SEAL = "seal"


def digest(values: object) -> str:
    """The sha256 of any JSON-able values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identifier(*values: object) -> str:
    """Sixteen hex digits for a row or a shard, from what identifies it."""
    return digest(values)[:16]


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    assert SEAL not in values
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    text = json.dumps({**values, SEAL: digest(dict(values))}, indent=1, sort_keys=True) + "\n"
    if isinstance(path, BucketPath):
        path.write_text(text)
        return
    with writing(path):
        try:
            part.write_text(text, encoding="utf-8")
            flush(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        flush(path.parent)


def read_sealed(path: Path, before: Collection[str] = ()) -> dict[str, Any] | None:
    """None for a damaged file. `before`: the names in files of a time before seals."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    if SEAL not in values:
        return values if before and set(values) == set(before) else None
    seal = values.pop(SEAL)
    return values if seal == digest(values) else None


def sum_of(path: Path) -> Path:
    """Where the checksum of a file that is no shard lies: beside it."""
    return path.with_name(f"{path.stem}.json")


def write_sum(path: Path, part: Path) -> None:
    """Note what `part` holds, which will be called `path`. Call it before the name is given."""
    write_sealed(sum_of(path), {"sha256": sha256_of(part)})


def damage_of(path: Path) -> str:
    """What is wrong with a file's bytes; of one from before there were sums nothing is known."""
    if not sum_of(path).exists():
        return ""
    stated = read_sealed(sum_of(path))
    if stated is None:
        return "has a damaged checksum beside it"
    whole = stated["sha256"] == sha256_of(path)
    return "" if whole else "has another checksum than when it was written"


def sha256_of(path: Path) -> str:
    if isinstance(path, BucketPath):
        total = hashlib.sha256()
        for piece in path.chunks():
            total.update(piece)
        return total.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """To the disk; a bucket has it when it says so."""
    if isinstance(path, BucketPath):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """The files of a folder and the folder itself; one that vanishes meanwhile needs none."""
    if isinstance(folder, BucketPath) or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file():
            try:
                flush(path)
            except FileNotFoundError:
                continue
    flush(folder)
