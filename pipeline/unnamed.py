"""What no kept record names, found by looking: tables, versions, shards, checkpoints, leftovers.

In:    a root and the manifests that are kept.
Out:   `Item`s, each with its size and why it may go. Nothing is removed here.
Rerun: looks again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.checkpoints import MANIFEST
from pipeline.checkpoints import RUN as RUN_VALUES
from pipeline.description import description_folder
from pipeline.leases import abandoned
from pipeline.ledger import Entry
from pipeline.places import inside, snapshot_file, sum_file, tag_file, version_file, versions
from pipeline.seals import sum_of
from pipeline.snapshots import Manifest, Snapshot, manifest_name
from pipeline.tables import committed

PASSING = (".*.part", ".tmp*", ".*.partial", "*.manifest#*")  # names of files on their way
WAITING_SHARD, UNFINISHED_TABLE = "waiting shard", "unfinished table"
UNFINISHED_TRAINING = "unfinished training"
UNFINISHED = (WAITING_SHARD, UNFINISHED_TABLE, UNFINISHED_TRAINING)


@dataclass(frozen=True)
class Item:
    """One thing that may go: all of its places go together."""

    kind: str
    place: str
    why: str
    bytes: int
    places: tuple[str, ...]  # files and folders below the root
    spared: str = ""  # why it stays nevertheless


def tables(root: Path, kept: Sequence[Manifest]) -> Iterator[Item]:
    named: dict[str, dict[str, Snapshot]] = {}
    for manifest in kept:
        for snapshot in manifest.snapshots.values():
            named.setdefault(snapshot.table, {})[snapshot.tag] = snapshot
    records = committed(root)
    for path in sorted((root / "tables").glob("*.lance")):
        own = [snapshot for snapshot in records if snapshot.table == path.stem]
        if path.stem not in named:
            notes = [snapshot_file(root, path.stem, s.tag) for s in own]
            kind = "table" if own else UNFINISHED_TABLE
            yield _item(root, kind, path, "no kept record names it", [path, *notes])
        else:
            yield from _versions(root, path, own, named[path.stem])


def _versions(
    root: Path, path: Path, own: Sequence[Snapshot], named: Mapping[str, Snapshot]
) -> Iterator[Item]:
    """Versions of a table that is kept, and shards that no version of it holds any more."""
    kept_numbers = {snapshot.version for snapshot in named.values()}
    for snapshot in own:
        if snapshot.tag in named:
            continue
        places = [
            snapshot_file(root, snapshot.table, snapshot.tag),
            tag_file(root, snapshot.table, snapshot.tag),
        ]
        if snapshot.version not in kept_numbers:
            places.append(version_file(root, snapshot.table, snapshot.version))
            places += (path / "_transactions").glob(f"{snapshot.version - 1}-*.txn")
        yield _item(root, "version", places[0], "no kept record names it", places, snapshot.label)
    numbers = {snapshot.version for snapshot in own} | kept_numbers
    for number in versions(path):
        if number not in numbers:
            manifest = version_file(root, path.stem, number)
            yield _item(root, "version", manifest, "its record is gone", [manifest])
    shards = {shard.name for snapshot in named.values() for shard in snapshot.shards}
    ever = {shard.name for snapshot in own for shard in snapshot.shards}
    for file in sorted((path / "data").glob("*.lance")):
        if file.stem not in shards:
            places = [file, sum_file(root, path.stem, file.stem)]
            once = file.stem in ever
            why = "no kept version holds it" if once else "it was never committed"
            yield _item(root, "shard" if once else WAITING_SHARD, file, why, places)


def checkpoints(root: Path, kept: Sequence[Manifest]) -> Iterator[Item]:
    places = [place for manifest in kept for place in manifest.checkpoints.values()]
    named = {"/".join(Path(place).parts[:2]) for place in places}
    for path in sorted((root / "checkpoints").glob("*")):
        if path.relative_to(root).as_posix() not in named:
            kind = "checkpoint" if (path / MANIFEST).is_file() else UNFINISHED_TRAINING
            yield _item(root, kind, path, "no kept record names it", [path])
        elif (path / MANIFEST).is_file():
            every = _kept_for_good(path)
            for state in sorted(path.rglob("state-*.pt")):
                if not every or int(state.stem.removeprefix("state-")) % every:
                    why = "its training is finished"
                    yield _item(root, "state", state, why, [state, sum_of(state)])


def _kept_for_good(training: Path) -> int:
    """The run's own `keep_every` of the stage; 0 where it keeps none."""
    path = training / RUN_VALUES
    values = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else None
    section = (values or {}).get(training.name.rsplit("-", 1)[0]) or {}
    return int(section.get("keep_every") or 0)


def leftovers(
    root: Path, every: Sequence[Entry], names: Collection[str], kept: Sequence[Manifest]
) -> Iterator[Item]:
    """`names`: of the entries that are kept."""
    for entry in every:
        if entry.name not in names:
            paths = [root / "ledger" / f"{entry.name}.json"]
            paths.append(root / "ledger" / "copies" / paths[0].name)
            yield _item(root, "record", paths[0], "newer ones of its stage are kept", paths)
    shown = {description_folder(root, each.stage, each.content) for each in kept}
    for path in sorted((root / "descriptions").glob("*")):
        if path not in shown:
            yield _item(root, "description", path, "no kept record names it", [path])
    handed = {manifest_name(manifest) for manifest in kept}
    for path in sorted((root / "manifests").glob("*.json")):
        if path.stem not in handed:
            yield _item(root, "manifest", path, "no kept record names it", [path])
    for folder, why in (
        ("quarantine", "damaged, and moved aside"),
        ("launches", "how a training was once started"),
    ):
        for path in sorted((root / folder).glob("*")):
            yield _item(root, folder, path, why, [path])
    for path in abandoned(root):
        yield _item(root, "lease", path, "its process is gone", [path])
    for pattern in PASSING:
        for path in sorted(root.rglob(pattern)):
            yield _item(root, "leftover", path, "a writer died over it", [path])


def _item(
    root: Path, kind: str, path: Path, why: str, places: Iterable[Path], name: str = ""
) -> Item:
    there = [inside(root, place) for place in places if place.exists()]
    size = sum(_size(place) for place in there)
    relative = tuple(place.relative_to(root).as_posix() for place in there)
    return Item(kind, name or path.relative_to(root).as_posix(), why, size, relative)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
