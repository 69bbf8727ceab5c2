"""Retention: what no kept record names is listed, and removed when asked to.

In:    a root; how many records of each stage to keep (all, unless a number is given).
Out:   `Plan`: each place with its size and why it may go. Removing nothing is the default.
Rerun: lists what is left. What a kept entry came from is kept with it; what was removed is made
       again by whoever asks for it.

    python -m pipeline.retention --root artifacts/tiny --keep 3 [--remove]

Never touched: what a living lease holds (`pipeline.leases`), what the run's own values lead to
(an interrupted stage goes on there), and whatever was written within `min_age_hours`.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

from pipeline.checkpoints import MANIFEST
from pipeline.checkpoints import RUN as RUN_VALUES
from pipeline.config import RunConfig, load_run
from pipeline.description import Grid, description_folder, table
from pipeline.leases import Lease, abandoned, gate, living
from pipeline.ledger import Entry, entries, with_inputs
from pipeline.places import inside, snapshot_file, sum_file, tag_file, version_file, versions
from pipeline.preflight import configured
from pipeline.seals import sum_of
from pipeline.snapshots import Manifest, Snapshot, manifest_name
from pipeline.tables import committed
from pipeline.upstream import STAGES

PASSING = (".*.part", ".tmp*", ".*.partial", "*.manifest#*")  # names of files on their way
MIN_AGE_HOURS = 24.0
WAITING = ("waiting shard", "it was never committed")


@dataclass(frozen=True)
class Item:
    """One thing that may go: all of its places go together."""

    kind: str
    place: str
    why: str
    bytes: int
    places: tuple[str, ...]  # files and folders below the root
    spared: str = ""  # why it stays nevertheless


@dataclass(frozen=True)
class Plan:
    root: str
    kept: int  # entries
    items: tuple[Item, ...]
    removed: bool = False

    @property
    def going(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if not item.spared)


def retain(
    root: Path,
    *,
    keep: int | None = None,
    config: RunConfig | None = None,
    remove: bool = False,
    min_age_hours: float = MIN_AGE_HOURS,
) -> Plan:
    """List what may go; with `remove`, let it go. No stage begins meanwhile."""
    root = Path(root)
    if keep is not None and keep < 1:
        raise ValueError(f"keep: {keep} records of a stage; at least 1, or none for all")
    if not (root / "ledger").is_dir():
        raise ValueError(
            f"{root} has no ledger, so nothing there has a name: run it once, it enters what it has"
        )
    wanted = list(_wanted(config)) if config else []
    with gate(root):
        every = entries(root)
        kept = kept_entries(root, every, keep)
        found = [*_tables(root, kept), *_checkpoints(root, kept), *_leftovers(root, every, kept)]
        leases = living(root)
        items = [_spared(root, item, leases, wanted, min_age_hours) for item in found]
        plan = Plan(str(root), len(kept), tuple(_with_versions(root, items)), remove)
        if remove:
            for item in plan.going:
                _remove(root, item)
    return plan


def kept_entries(root: Path, every: Sequence[Entry], keep: int | None) -> list[Entry]:
    """The newest of each run and stage, and all that these came from."""
    chosen: dict[tuple[str, str], list[Entry]] = {}
    for entry in every:
        chosen.setdefault((entry.run, entry.stage), []).append(entry)
    newest = [entry for found in chosen.values() for entry in found[-(keep or len(found)) :]]
    # Above a kept entry stands a kept one, however old.
    named = {above.name: above for entry in newest for above in with_inputs(root, entry).values()}
    return [entry for entry in every if entry.name in named]


def _wanted(config: RunConfig) -> Iterator[str]:
    """Where the run's own values lead to, as far as its stages are made, and one further."""
    manifests: dict[str, Manifest] = {}
    for stage in STAGES:
        if not configured(config, stage.STAGE):
            return
        yield from stage.places(config, manifests)
        found = stage.find(config, manifests)
        if found is None:
            return
        manifests[stage.STAGE] = found


# --- what nobody names --------------------------------------------------------------------------


def _tables(root: Path, kept: Sequence[Entry]) -> Iterator[Item]:
    named: dict[str, dict[str, Snapshot]] = {}
    for entry in kept:
        for snapshot in entry.tables.values():
            named.setdefault(snapshot.table, {})[snapshot.tag] = snapshot
    records = committed(root)
    for path in sorted((root / "tables").glob("*.lance")):
        own = [snapshot for snapshot in records if snapshot.table == path.stem]
        if path.stem not in named:
            notes = [snapshot_file(root, path.stem, s.tag) for s in own]
            yield _item(root, "table", path, "no kept record names it", [path, *notes])
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
            kind, why = ("shard", "no kept version holds it") if once else WAITING
            yield _item(root, kind, file, why, places)


def _checkpoints(root: Path, kept: Sequence[Entry]) -> Iterator[Item]:
    places = [place for entry in kept for place in entry.manifest.checkpoints.values()]
    named = {"/".join(Path(place).parts[:2]) for place in places}
    for path in sorted((root / "checkpoints").glob("*")):
        if path.relative_to(root).as_posix() not in named:
            yield _item(root, "checkpoint", path, "no kept record names it", [path])
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


def _leftovers(root: Path, every: Sequence[Entry], kept: Sequence[Entry]) -> Iterator[Item]:
    names = {entry.name for entry in kept}
    for entry in every:
        if entry.name not in names:
            paths = [root / "ledger" / f"{entry.name}.json"]
            paths.append(root / "ledger" / "copies" / paths[0].name)
            yield _item(root, "record", paths[0], "newer ones of its stage are kept", paths)
    shown = {description_folder(root, e.stage, e.manifest.content) for e in kept}
    for path in sorted((root / "descriptions").glob("*")):
        if path not in shown:
            yield _item(root, "description", path, "no kept record names it", [path])
    handed = {manifest_name(entry.manifest) for entry in kept}
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


# --- what stays nevertheless, and how the rest goes ---------------------------------------------


def _spared(
    root: Path, item: Item, leases: Sequence[Lease], wanted: Sequence[str], min_age_hours: float
) -> Item:
    for place in item.places:
        for lease in leases:
            if lease.holds(place):
                return replace(item, spared=f"held by {lease}")
        # Of a wanted table only what waits for its commit: its old versions are no part of it.
        inside = any(place == own or place.startswith(f"{own}/") for own in wanted)
        if inside and item.kind in ("table", WAITING[0], "checkpoint"):
            return replace(item, spared="the run's values lead to it: an interrupted stage goes on")
    hours = (time.time() - _last_written(root, item)) / 3600
    if hours < min_age_hours:
        return replace(item, spared=f"written {hours:.1f} h ago, {min_age_hours:g} h are waited")
    return item


def _with_versions(root: Path, items: Sequence[Item]) -> Iterator[Item]:
    """A version that stays keeps its shards, also where no record names it yet."""
    going = {place for item in items if not item.spared for place in item.places}
    staying = {
        (snapshot.table, shard.name)
        for snapshot in committed(root)
        if f"snapshots/{snapshot.table}-{snapshot.tag}.json" not in going
        for shard in snapshot.shards
    }
    for item in items:
        path = Path(item.places[0]) if item.places else Path()
        held = item.kind == "shard" and (path.parent.parent.stem, path.stem) in staying
        yield replace(item, spared=item.spared or "a version that stays holds it") if held else item


def _last_written(root: Path, item: Item) -> float:
    """Of its files: a folder's own time also changes when something in it is removed."""
    paths = [root / place for place in item.places]
    below = [file for path in paths for file in path.rglob("*") if not file.is_dir()]
    times = [file.lstat().st_mtime for file in [*below, *(p for p in paths if p.is_file())]]
    return max(times or [path.lstat().st_mtime for path in paths], default=0.0)


def _remove(root: Path, item: Item) -> None:
    """Records first: what is half removed is then named by nobody, and goes the next time."""
    for place in sorted(item.places, key=lambda place: not place.endswith(".json")):
        path = root / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


# --- what a person sees -------------------------------------------------------------------------


def sentence(plan: Plan) -> str:
    size = sum(item.bytes for item in plan.going) / 2**20
    did = "removed" if plan.removed else "may go; nothing was removed"
    spared = len(plan.items) - len(plan.going)
    return (
        f"{len(plan.going):,} things of {size:,.1f} MiB {did}; {spared:,} others are spared, "
        f"{plan.kept:,} records are kept with all that they name"
    )


def markdown(plan: Plan) -> str:
    parts = [f"# Retention in {plan.root}", sentence(plan)]
    by_kind: dict[str, list[int]] = {}
    for item in plan.going:
        counts = by_kind.setdefault(item.kind, [0, 0])
        counts[0], counts[1] = counts[0] + 1, counts[1] + item.bytes
    rows = tuple((k, f"{n:,}", f"{b / 2**20:,.2f}") for k, (n, b) in by_kind.items())
    for title, grid in (
        ("By kind", Grid("", ("kind", "things", "MiB"), rows)),
        ("Removed" if plan.removed else "May go", _grid(plan.going)),
        ("Spared", _grid([item for item in plan.items if item.spared])),
    ):
        if grid.rows:
            parts.append(f"### {title}\n\n{table(grid)}")
    return "\n\n".join(parts) + "\n"


def _grid(items: Sequence[Item]) -> Grid:
    ordered = sorted(items, key=lambda item: -item.bytes)
    rows = tuple((i.kind, i.place, f"{i.bytes / 2**20:,.2f}", i.spared or i.why) for i in ordered)
    return Grid("", ("kind", "place", "MiB", "why"), rows)


def main(words: Collection[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.retention", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--root", type=Path, help="such as artifacts/tiny")
    where.add_argument("--run", help="such as tiny: its root; what its values lead to is spared")
    parser.add_argument("--keep", type=int, help="newest records of each stage; none: all")
    parser.add_argument("--min-age-hours", type=float, default=MIN_AGE_HOURS)
    parser.add_argument("--remove", action="store_true", help="not only list")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(None if words is None else list(words))
    config = load_run(args.run) if args.run else None
    root = Path(config.root) if config else args.root
    try:
        plan = retain(
            root,
            keep=args.keep,
            config=config,
            remove=args.remove,
            min_age_hours=args.min_age_hours,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(plan), indent=1) if args.json else markdown(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
