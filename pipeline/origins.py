"""Origins: from a thing that is asked for back to the captions.

In:    a root and a target: an entry of the ledger or a stage (its newest), a checkpoint by its name
       or folder, a table, an image_id, pair_id or caption_id, or a score as `aligned/counting`.
Out:   `Lineage`: the entries from the captions to the target, the row itself, models with revisions
       and licences, seeds.
Rerun: reads only.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import evaluation
from pipeline.buckets import SCHEME
from pipeline.ledger import Entry, entries, entry_named, newest, section_of, with_inputs
from pipeline.preflight import SECTIONS
from pipeline.roots import root_of
from pipeline.snapshots import Shard, Snapshot
from pipeline.standings import summarise
from pipeline.tables import read, take
from pipeline.values import flattened

# Tables whose rows can be asked for: stage, table, key, and what is too large to show.
ROWS = (
    ("images", "images", "image_id", {"image"}),
    ("captions", "captions", "caption_id", set[str]()),
    ("preferences", "preferences", "pair_id", {"winner", "loser", "winner_image", "loser_image"}),
)


@dataclass(frozen=True)
class Row:
    """One row of a table, with the shard that holds it and who made that shard."""

    table: str
    number: int
    shard: Shard
    values: Mapping[str, object]
    made_by: Entry


@dataclass(frozen=True)
class Lineage:
    target: str
    root: str
    entries: Mapping[str, Entry]  # by stage, from the captions to the target
    rows: tuple[Row, ...] = ()  # the row asked for, and the rows that it came from
    facts: Mapping[str, str] = field(default_factory=dict)  # of the target

    @property
    def last(self) -> Entry:
        return list(self.entries.values())[-1]

    @property
    def models(self) -> dict[str, Mapping[str, str]]:
        return {place: facts for e in self.entries.values() for place, facts in e.models.items()}

    @property
    def seeds(self) -> dict[str, object]:
        values = {section_of(label): entry.values for label, entry in self.entries.items()}
        return {p: v for p, v in flattened(values) if p.rpartition(".")[2].endswith("seed")}

    @property
    def licences(self) -> dict[str, str]:
        """Of whatever the values name, by place."""
        values = {section_of(label): entry.values for label, entry in self.entries.items()}
        return {p: str(v) for p, v in flattened(values) if p.endswith(".licence") and v}


def trace(root: Path, target: str = "", run: str | None = None) -> Lineage:
    """Where `target` comes from; without one, where the newest stage of the run does."""
    root = root_of(root)
    if not target or target in SECTIONS:
        return _of_entry(root, newest(root, run, target or None), target)
    for found in (_checkpoint(root, target, run), _table(root, target), _score(root, target, run)):
        if found is not None:
            return found
    row = _row(root, target, run)
    return row if row is not None else _of_entry(root, entry_named(root, target), target)


def _of_entry(root: Path, entry: Entry, target: str) -> Lineage:
    return Lineage(target or entry.name, str(root), with_inputs(root, entry))


def _newest_first(root: Path, run: str | None) -> list[Entry]:
    return [entry for entry in reversed(entries(root)) if run in (None, entry.run)]


def _checkpoint(root: Path, target: str, run: str | None) -> Lineage | None:
    """By its name, or by a path at or in its folder."""
    path = (root_of(target) if target.startswith(SCHEME) else Path(target)).absolute()
    for entry in _newest_first(root, run):
        for name, place in entry.manifest.checkpoints.items():
            inside = path.is_relative_to((root / place).absolute())
            if target == name or inside or path == (root / place).absolute().parent:
                found = _of_entry(root, entry, f"{entry.stage} checkpoint {name}")
                facts = {"checkpoint": place, "weights sha256": entry.manifest.content}
                return replace(found, facts=facts if place.endswith("final") else {"start": place})
    return None


def _table(root: Path, target: str) -> Lineage | None:
    name = target.split("@")[0].strip()
    for entry in reversed(entries(root)):
        if any(snapshot.table == name for snapshot in entry.tables.values()):
            return _of_entry(root, entry, target)
    return None


def _score(root: Path, target: str, run: str | None) -> Lineage | None:
    """`aligned/counting` or `aligned/mean`: the share, and the weights that drew the pictures."""
    checkpoint, _, task = target.partition("/")
    if not task or Path(target).exists():
        return None
    for entry in _newest_first(root, run):
        if entry.stage != evaluation.STAGE:
            continue
        snapshot = entry.tables[evaluation.STAGE]
        names = ["evaluator", "checkpoint", "task", "correct", "seed"]
        rows = read(root, snapshot, names, check=False)
        shares = summarise(rows).get(checkpoint, {})
        if task not in shares:
            continue
        own = rows.filter(pc.equal(rows["checkpoint"], checkpoint))
        of_task = own.filter(pc.equal(own["task"], task.rpartition("/")[2]))
        facts = {
            "share of correct pictures": f"{shares[task]:.4f}",
            "pictures": f"{len(of_task) or len(own):,}",
            "evaluator": ", ".join(own["evaluator"].unique().to_pylist()),
            "table": snapshot.label,
        }
        above = _without_later(root, with_inputs(root, entry), checkpoint)
        return Lineage(f"the score {target}", str(root), above, facts=facts)
    return None


def _without_later(root: Path, above: Mapping[str, Entry], checkpoint: str) -> dict[str, Entry]:
    """Only the stages that this checkpoint came from, and the evaluation itself."""
    last = above[evaluation.STAGE]
    stages = {last.stage}
    for stage, entry in above.items():
        if checkpoint in entry.manifest.checkpoints:
            stages |= with_inputs(root, entry).keys() | {stage}
    return {stage: entry for stage, entry in above.items() if stage in stages}


# --- rows ---------------------------------------------------------------------------------------


def _row(root: Path, target: str, run: str | None) -> Lineage | None:
    for stage, name, key, large in ROWS:
        for entry in _newest_first(root, run):
            if entry.stage != stage:
                continue
            row = _find(root, entry, name, key, target, large)
            if row is not None:
                rows = (row, *_caption_of(root, entry, row))
                kind = key.removesuffix("_id")
                return Lineage(f"{kind} {target}", str(root), with_inputs(root, entry), rows)
    return None


def _caption_of(root: Path, entry: Entry, row: Row) -> Iterator[Row]:
    """The caption that a picture was drawn for, where the row is no caption itself."""
    above = with_inputs(root, entry).get("captions")
    caption_id = str(row.values.get("caption_id", ""))
    if above is not None and entry.stage != "captions":
        found = _find(root, above, "captions", "caption_id", caption_id, set())
        if found is not None:
            yield found


def _find(
    root: Path, entry: Entry, name: str, key: str, target: str, large: Collection[str]
) -> Row | None:
    snapshot = entry.tables[name]
    number = pc.index(read(root, snapshot, [key], check=False)[key], pa.scalar(target)).as_py()
    if number < 0:
        return None
    shard = _shard_at(snapshot, number)
    columns = [c for c in _columns(root, snapshot) if c not in large]
    (values,) = take(root, snapshot, [number], columns).to_pylist()
    return Row(snapshot.label, number, shard, values, _maker_of(root, shard, entry))


def _columns(root: Path, snapshot: Snapshot) -> list[str]:
    return list(read(root, snapshot, None, [], check=False).schema.names)


def _shard_at(snapshot: Snapshot, number: int) -> Shard:
    first = 0
    for shard in snapshot.shards:
        first += shard.rows
        if number < first:
            return shard
    raise AssertionError(f"{snapshot.label} has no row {number}")


def _maker_of(root: Path, shard: Shard, entry: Entry) -> Entry:
    """A table grows: the entry that was written first with this shard made it."""
    of = [e for e in entries(root) if any(shard in s.shards for s in e.tables.values())]
    return min(of, key=lambda each: each.written, default=entry)
