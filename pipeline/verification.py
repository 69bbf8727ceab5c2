"""Verification: every file that the records name, read whole and compared with its checksum.

In:    a root. The records are <root>/snapshots, <root>/ledger, the sums beside states and readings.
Out:   what is damaged, named. Each damaged file is moved to <root>/quarantine, never deleted, so
       that the next run misses it and makes it again, and nothing else.
Rerun: reads everything again; what was moved is no longer asked for once it is made again.

    python -m pipeline.verification --root artifacts/tiny

What follows from a damage depends on what it is of:
a shard is made again alone; without its manifest a version is committed again from the same shards;
without its weights a training ends anew from its newest state; a record is written again by the
run; a log or a sample of a training is lost and says so.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from pipeline.checkpoints import FINAL, MANIFEST, STATED
from pipeline.damage import Damage, again, quarantined
from pipeline.description import MAX_TABLE_ROWS, Grid, table
from pipeline.ledger import entries, forget
from pipeline.places import data_file, empty_manifests, snapshot_file, sum_file
from pipeline.roots import each, root_argument
from pipeline.seals import damage_of, read_sealed, sha256_of
from pipeline.snapshots import Shard
from pipeline.tables import SHARD_FIELDS, SNAPSHOT_FIELDS, committed

THREADS = 4
SEALED: dict[str, Collection[str]] = {  # our records, with the names in those from before seals
    "snapshots/*.json": SNAPSHOT_FIELDS,
    "ledger/**/*.json": (),
    "tables/*.lance/sums/*.json": SHARD_FIELDS,
    f"checkpoints/*/{MANIFEST}": STATED,
}

Tell = Callable[[int, int, int], None]  # bytes read, bytes in all, rows read


@dataclass(frozen=True)
class Verified:
    """What was read and what was found."""

    root: str
    files: int
    bytes: int
    rows: int
    seconds: float
    damages: tuple[Damage, ...] = ()


@dataclass
class Expected:
    """One file with every checksum under which a record names it."""

    path: Path
    sums: set[str] = field(default_factory=set)
    size: int | None = None
    rows: int = 0

    def damage(self) -> str:
        try:
            size = self.path.stat().st_size
            if self.size not in (None, size):
                return f"has {size:,} bytes, {self.size:,} were written"
            if sha256_of(self.path) not in self.sums:
                return "has another checksum than when it was written" if size else "is empty"
        except FileNotFoundError:
            return "is missing"
        return ""


def nothing(_done: int, _total: int, _rows: int) -> None:
    """Nobody is told."""


def verify(root: Path, *, quarantine: bool = True, tell: Tell = nothing) -> Verified:
    """Read all of it; damaged files are moved aside unless `quarantine` is off."""
    if not (root / "snapshots").is_dir() and not (root / "ledger").is_dir():
        raise ValueError(f"{root} holds no records of a run: nothing to verify")
    started = time.monotonic()
    expected = [*_shards(root), *_files(root)]
    empty = [m for path in (root / "tables").glob("*.lance") for m in empty_manifests(path)]
    each = [
        *_damaged_records(root),
        *_read_all(root, expected, tell),
        *_damaged_sums(root),
        *(_record(root, manifest) for manifest in empty),
    ]
    found = list({damage.place: damage for damage in each}.values())
    if quarantine:
        found = [quarantined(root, damage) for damage in found]
        forget(root, {damage.place for damage in found})
    return Verified(
        str(root),
        len(expected),
        sum(each.path.stat().st_size for each in expected if each.path.exists()),
        sum(each.rows for each in expected),
        time.monotonic() - started,
        tuple(sorted(found, key=lambda damage: damage.place)),
    )


def _read_all(root: Path, expected: list[Expected], tell: Tell) -> list[Damage]:
    """The large ones first, several at once: the sum of one leaves Python's lock to the others."""
    sizes = {id(e): e.path.stat().st_size if e.path.exists() else 0 for e in expected}
    total, done, rows = sum(sizes.values()), 0, 0
    found = []
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = {
            threads.submit(each.damage): each
            for each in sorted(expected, key=lambda each: -sizes[id(each)])
        }
        for future in as_completed(waiting):
            each = waiting[future]
            done, rows = done + sizes[id(each)], rows + each.rows
            if what := future.result():
                place = each.path.relative_to(root).as_posix()
                found.append(Damage(place, what, again(place)))
            tell(done, total, rows)
    return found


# --- what is named ------------------------------------------------------------------------------


def _shards(root: Path) -> list[Expected]:
    """Every data file of a committed version, and those that wait for their commit."""
    known: dict[tuple[str, str], Shard] = {}
    manifests = [entry.manifest.snapshots.values() for entry in entries(root)]
    for snapshot in [*committed(root), *(s for snapshots in manifests for s in snapshots)]:
        known |= {(snapshot.table, shard.name): shard for shard in snapshot.shards}
    for path in (root / "tables").glob("*.lance/sums/*.json"):
        values, table = read_sealed(path, SHARD_FIELDS), path.parent.parent.stem
        if values and data_file(root, table, path.stem).exists():
            known.setdefault((table, path.stem), Shard(**values))
    return [
        Expected(data_file(root, table, name), {shard.sha256}, shard.size, shard.rows)
        for (table, name), shard in sorted(known.items())
    ]


def _files(root: Path) -> list[Expected]:
    """What entries of the ledger name beside shards; the same place may have had several sums."""
    known: dict[str, set[str]] = {}
    for entry in entries(root):
        for place, total in entry.files.items():
            known.setdefault(place, set()).add(total)
    for path in (root / "checkpoints").glob(f"*/{MANIFEST}"):
        if stated := read_sealed(path, STATED):
            weights = path.parent / FINAL / "model.safetensors"
            known.setdefault(weights.relative_to(root).as_posix(), {stated["weights"]})
    return [Expected(root / place, sums) for place, sums in sorted(known.items())]


def _damaged_sums(root: Path) -> Iterator[Damage]:
    """States and readings carry their sum beside them."""
    states = (root / "checkpoints").rglob("state-*.pt")
    for path in sorted([*states, *(root / "readings").glob("*.arrow")]):
        try:
            what = damage_of(path)
        except FileNotFoundError:  # a running training drops its old states
            continue
        if what:
            place = path.relative_to(root).as_posix()
            yield Damage(place, what, again(place))


def _damaged_records(root: Path) -> Iterator[Damage]:
    """Our own small files: each is sealed, or named by what it holds."""
    for pattern, fields in SEALED.items():
        paths = sorted(root.glob(pattern))
        values = each(root, partial(read_sealed, before=fields), paths)
        yield from (_record(root, p) for p, read in zip(paths, values, strict=True) if read is None)
    for path in sorted((root / "manifests").glob("*.json")):
        if not sha256_of(path).startswith(path.stem.rsplit("-", 1)[1]):
            yield _record(root, path)
    for path in sorted({*_records_of_versions(root)}):
        if not path.exists():
            yield _record(root, path)


def _records_of_versions(root: Path) -> Iterator[Path]:
    """The record of every version that the ledger names, the sum of every shard of a version."""
    for entry in entries(root):
        for snapshot in entry.manifest.snapshots.values():
            yield snapshot_file(root, snapshot.table, snapshot.tag)
    for snapshot in committed(root):
        yield from (sum_file(root, snapshot.table, shard.name) for shard in snapshot.shards)


def _record(root: Path, path: Path) -> Damage:
    place = path.relative_to(root).as_posix()
    what = "is missing"
    if path.exists():
        what = "is not what was written" if path.stat().st_size else "is empty"
    return Damage(place, what, again(place))


# --- what a person sees -------------------------------------------------------------------------


def sentence(verified: Verified) -> str:
    found = len(verified.damages)
    rate = verified.bytes / 2**20 / max(verified.seconds, 1e-9)
    return (
        f"{verified.files:,} files with {verified.rows:,} rows and "
        f"{verified.bytes / 2**20:,.1f} MiB read in {verified.seconds:,.1f} s ({rate:,.0f} MiB/s): "
        f"{f'{found:,} damaged' if found else 'all as they were written'}"
    )


def markdown(verified: Verified) -> str:
    lines = [f"# Verification of {verified.root}", sentence(verified)]
    if verified.damages:
        rows = tuple(
            (d.place, d.what, d.then, Path(d.moved_to).name or "-") for d in verified.damages
        )
        header = ("file", "damage", "then", "in quarantine as")
        lines.append(table(Grid("", header, rows[:MAX_TABLE_ROWS])))
        if len(rows) > MAX_TABLE_ROWS:
            lines.append(f"{len(rows) - MAX_TABLE_ROWS:,} more.")
    return "\n\n".join(lines) + "\n"


def main(words: Collection[str] | None = None) -> int:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(prog="python -m pipeline.verification", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--root", type=root_argument, required=True, help="such as artifacts/tiny")
    parser.add_argument("--look-only", action="store_true", help="move nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(None if words is None else list(words))
    try:
        with tqdm(unit="B", unit_scale=True, desc="verify", disable=None) as bar:

            def tell(done: int, total: int, rows: int) -> None:
                bar.total = total
                bar.update(done - bar.n)
                bar.set_postfix_str(f"{rows:,} rows")

            verified = verify(args.root, quarantine=not args.look_only, tell=tell)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(asdict(verified), indent=1))
    else:
        print(sentence(verified))
        for damage in verified.damages:
            print(f"  {damage.place} {damage.what}; {damage.then}")
            if damage.moved_to:
                print(f"    moved to {damage.moved_to}")
    return 1 if verified.damages else 0


if __name__ == "__main__":
    sys.exit(main())
