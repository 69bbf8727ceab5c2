"""Retention: what no kept record names is listed, and removed when asked to.

In:    a root; how many records of each stage to keep (all, unless a number is given).
Out:   `Plan`: each place with its size and why it may go. Removing nothing is the default.
Rerun: lists what is left. What a kept entry came from is kept with it; what was removed is made
       again by whoever asks for it.

    python -m pipeline.retention --root artifacts/tiny --keep 3 [--remove]

Never touched: what a living lease holds (`pipeline.leases`), what the run's own values lead to
(an interrupted stage goes on there), whatever was written within `min_age_hours`, and what was
begun and not finished for seven times as long.
"""

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.config import RunConfig, load_run
from pipeline.description import Grid, table
from pipeline.leases import Lease, gate, living
from pipeline.ledger import Entry, entries, with_inputs
from pipeline.places import remove as take_away
from pipeline.preflight import configured
from pipeline.roots import root_argument, root_of
from pipeline.snapshots import Manifest
from pipeline.tables import committed
from pipeline.unnamed import UNFINISHED, Item, checkpoints, leftovers, tables
from pipeline.upstream import STAGES

MIN_AGE_HOURS = 24.0
UNFINISHED_PATIENCE = 7  # times as long: somebody may mean to go on with it


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
    root = root_of(root)
    if keep is not None and keep < 1:
        raise ValueError(f"keep: {keep} records of a stage; at least 1, or none for all")
    if not (root / "ledger").is_dir():
        raise ValueError(
            f"{root} has no ledger, so nothing there has a name: run it once, it enters what it has"
        )
    places, manifests = _wanted(config) if config else ([], [])
    with gate(root):
        every = entries(root)
        _refuse_lost_records(root, every)
        kept = kept_entries(root, every, keep)
        named = [*(entry.manifest for entry in kept), *manifests]
        rest = leftovers(root, every, {entry.name for entry in kept}, named)
        found = [*tables(root, named), *checkpoints(root, named), *rest]
        leases = living(root)
        items = [_spared(root, item, leases, places, min_age_hours) for item in found]
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


def _wanted(config: RunConfig) -> tuple[list[str], list[Manifest]]:
    """Where the run's own values lead to: what is made of it, and the places of what comes next."""
    manifests: dict[str, Manifest] = {}
    places: list[str] = []
    for stage in STAGES:
        if not configured(config, stage.STAGE):
            break
        places += stage.places(config, manifests)
        found = stage.find(config, manifests)
        if found is None:
            break
        manifests[stage.STAGE] = found
    return places, list(manifests.values())


def _refuse_lost_records(root: Path, every: Sequence[Entry]) -> None:
    """ValueError where a record was damaged: what it named would pass for what nobody names."""
    names = {entry.name for entry in every}
    files = [*(root / "ledger").rglob("*.json"), *(root / "quarantine").glob("*--ledger--*.json")]
    lost = sorted({path.stem.rpartition("--")[2] for path in files} - names)
    if lost:
        raise ValueError(
            f"records of {root} are damaged, such as {lost[0]}, so what they name is not known: "
            "run the run again, it enters them again, or delete them by hand"
        )


# --- what stays nevertheless, and how the rest goes ---------------------------------------------


def _spared(
    root: Path, item: Item, leases: Sequence[Lease], wanted: Sequence[str], min_age_hours: float
) -> Item:
    unfinished = item.kind in UNFINISHED
    for place in item.places:
        for lease in leases:
            if lease.holds(place):
                return replace(item, spared=f"held by {lease}")
        within = any(place == own or place.startswith(f"{own}/") for own in wanted)
        if within and unfinished:
            return replace(item, spared="the run's values lead to it: an interrupted stage goes on")
    hours = (time.time() - _last_written(root, item)) / 3600
    waited = min_age_hours * (UNFINISHED_PATIENCE if unfinished else 1)
    if hours < waited:
        return replace(item, spared=f"written {hours:.1f} h ago, {waited:g} h are waited")
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
        take_away(path)


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
    where.add_argument("--root", type=root_argument, help="such as artifacts/tiny")
    where.add_argument("--run", help="such as tiny: its root; what its values lead to is spared")
    parser.add_argument("--keep", type=int, help="newest records of each stage; none: all")
    parser.add_argument("--min-age-hours", type=float, default=MIN_AGE_HOURS)
    parser.add_argument("--remove", action="store_true", help="not only list")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(None if words is None else list(words))
    config = load_run(args.run) if args.run else None
    root = root_of(config.root if config else args.root)
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
