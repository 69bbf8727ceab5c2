"""Lineage: everything that a checkpoint, a picture, a pair, a caption or a score came from.

In:    a root and a target: an entry of the ledger or a stage (its newest), a checkpoint by its name
       or folder, a table, an image_id, pair_id or caption_id, or a score as `aligned/counting`.
Out:   `Lineage`: the entries from the captions to the target, the row itself, models with revisions
       and licences, seeds, values, code; as Markdown, JSON and a graph.
Rerun: reads only.

    python -m pipeline.lineage --root artifacts/tiny aligned
"""

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline import evaluation
from pipeline.description import RECORD, Description, Grid, description_folder, table
from pipeline.graph import Box, Note, staircase
from pipeline.ledger import Entry, entries, entry_named, flattened, newest, with_inputs
from pipeline.preflight import SECTIONS
from pipeline.snapshots import Shard, Snapshot
from pipeline.tables import read, take

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
        values = {SECTIONS[stage]: entry.values for stage, entry in self.entries.items()}
        return {p: v for p, v in flattened(values) if p.rpartition(".")[2].endswith("seed")}

    @property
    def licences(self) -> dict[str, str]:
        """Of whatever the values name, by place."""
        values = {SECTIONS[stage]: entry.values for stage, entry in self.entries.items()}
        return {p: str(v) for p, v in flattened(values) if p.endswith(".licence") and v}


def trace(root: Path, target: str = "", run: str | None = None) -> Lineage:
    """Where `target` comes from; without one, where the newest stage of the run does."""
    root = Path(root)
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
    path = Path(target).absolute()
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
        shares = evaluation.summarise(rows).get(checkpoint, {})
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
        above = _without_later(with_inputs(root, entry), checkpoint)
        return Lineage(f"the score {target}", str(root), above, facts=facts)
    return None


def _without_later(above: Mapping[str, Entry], checkpoint: str) -> dict[str, Entry]:
    """Only the stages that this checkpoint came from, and the evaluation itself."""
    last = above[evaluation.STAGE]
    stages = {last.stage}
    for stage, entry in above.items():
        if checkpoint in entry.manifest.checkpoints:
            todo = [stage]
            while todo:
                stages.add(todo[-1])
                todo += [s for s in above[todo.pop()].inputs if s in above and s not in stages]
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


# --- what a person sees -------------------------------------------------------------------------


def graph(lineage: Lineage) -> bytes:
    """The stages from top to bottom, an arrow for what each one reads, models beside them."""
    boxes = []
    for stage, entry in lineage.entries.items():
        tables = [f"{s.table} @ {s.version}, {s.rows:,} rows" for s in entry.tables.values()]
        lines = [*tables, *entry.manifest.checkpoints.values()]
        reads = tuple(above for above in entry.inputs if above in lineage.entries)
        boxes.append(Box(stage, entry.name, tuple(lines), reads, _notes(lineage, entry)))
    return staircase(boxes)


def _notes(lineage: Lineage, entry: Entry) -> tuple[Note, ...]:
    """Models of the values; what the rows themselves say of teacher and judge."""
    notes = []
    for place, model in entry.models.items():
        version = model.get("revision") or model.get("sha256", "")
        licence = model.get("licence", "")
        name = "/".join(Path(model["name"]).parts[-2:])
        notes.append(Note(place.rpartition(".")[2].replace("_", " "), name, version[:12], licence))
    facts = described(lineage, entry)
    for role, name, version, licence in (
        ("teacher", "teacher", "revision", "licence"),
        ("judge", "judge", "judge revision", ""),
    ):
        if name in facts:
            version = facts.get(version, "")[:12]
            notes.append(Note(role, facts[name], version, facts.get(licence, "")))
    for role in ("source", "evaluator"):
        for each in entry.values.get(f"{role}s", ()):
            licence = str(each.get("licence", ""))
            notes.append(Note(role, each.get("name", each["kind"]), "", licence))
    seeds = {str(v) for p, v in flattened(entry.values) if p.rpartition(".")[2] == "seed"}
    return (*notes, *(Note("seed", seed) for seed in sorted(seeds)))


def described(lineage: Lineage, entry: Entry) -> dict[str, str]:
    """What the stage said of itself, from its rows."""
    folder = description_folder(Path(lineage.root), entry.stage, entry.manifest.content)
    return dict(Description.load(folder).facts) if (folder / RECORD).is_file() else {}


def markdown(lineage: Lineage) -> str:
    last = lineage.last
    parts = [
        f"# Where {lineage.target} comes from",
        f"Run `{last.run}` in `{lineage.root}`, entry `{last.name}`, last asked for {last.asked}.",
    ]
    parts += [_section("The target itself", _pairs(lineage.facts))] if lineage.facts else []
    for row in lineage.rows:
        about = {"table": row.table, "row": f"{row.number:,}", "shard": row.shard.name}
        about |= {"shard sha256": row.shard.sha256, "made by": row.made_by.name}
        about |= {name: str(value) for name, value in row.values.items()}
        parts.append(_section(f"The row in {row.table}", _pairs(about)))
    parts.append(_section("Stages", _stages(lineage)))
    parts.append(_section("Models and data sets", _models(lineage)))
    parts.append(_section("Licences named by the values", _pairs(lineage.licences)))
    parts.append(_section("Seeds", _pairs({k: str(v) for k, v in lineage.seeds.items()})))
    parts.append(_section("Code and packages", _makers(lineage)))
    for stage, entry in lineage.entries.items():
        if facts := described(lineage, entry):
            parts.append(_section(f"What {stage} says of itself", _pairs(facts)))
        values = yaml.safe_dump(_plain(entry.values), sort_keys=False, width=100)
        parts.append(f"### Values of {stage}\n\n```yaml\n{values}```")
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(lineage: Lineage) -> dict[str, object]:
    values = asdict(lineage)
    more = {"models": lineage.models, "seeds": lineage.seeds, "licences": lineage.licences}
    return json.loads(json.dumps(values | more, default=str))


def _section(title: str, grid: Grid) -> str:
    return f"### {title}\n\n{table(grid)}" if grid.rows else ""


def _pairs(values: Mapping[str, str]) -> Grid:
    return Grid("", ("what", "which"), tuple(values.items()))


def _stages(lineage: Lineage) -> Grid:
    rows = []
    for stage, entry in lineage.entries.items():
        made = entry.maker.get("code", "unknown")
        for snapshot in entry.tables.values():
            label = f"{snapshot.table} @ version {snapshot.version}"
            rows.append((stage, label, f"{snapshot.rows:,}", snapshot.content[:16], made))
        for place in entry.manifest.checkpoints.values():
            content = entry.manifest.content[:16] if place.endswith("final") else "-"
            rows.append((stage, place, "-", content, made))
    return Grid(
        "", ("stage", "table or checkpoint", "rows", "content", "made by code"), tuple(rows)
    )


def _models(lineage: Lineage) -> Grid:
    names = ("name", "revision", "licence", "sha256")
    rows = tuple(
        (
            place,
            *((facts.get(name) or "-")[:48] for name in names[:3]),
            facts.get("sha256", "-")[:16],
        )
        for place, facts in lineage.models.items()
    )
    return Grid("", ("place", *names), rows)


def _makers(lineage: Lineage) -> Grid:
    """One column a maker: mostly one has made all."""
    makers = {json.dumps(e.maker, sort_keys=True): e.maker for e in lineage.entries.values()}
    names = list(dict.fromkeys(name for maker in makers.values() for name in maker))
    rows = tuple((name, *(m.get(name, "-") for m in makers.values())) for name in names)
    stages = [
        ", ".join(s for s, e in lineage.entries.items() if e.maker == maker)
        for maker in makers.values()
    ]
    return Grid("", ("what", *stages), rows)


def _plain(values: Mapping[str, object]) -> object:
    return json.loads(json.dumps(values))


def main(words: Collection[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.lineage", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("target", nargs="?", default="", help="what to ask for; none: the newest")
    parser.add_argument("--root", type=Path, required=True, help="such as artifacts/tiny")
    parser.add_argument("--svg", type=Path, help="write the graph here")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--list", action="store_true", help="the entries of the ledger")
    args = parser.parse_args(None if words is None else list(words))
    if args.list:
        for entry in entries(args.root):
            print(f"{entry.asked[:19]}  {entry.run:10}  {entry.name}")
        return 0
    try:
        lineage = trace(args.root, args.target)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if args.svg:
        args.svg.write_bytes(graph(lineage))
    print(json.dumps(to_json(lineage), indent=1) if args.json else markdown(lineage))
    return 0


if __name__ == "__main__":
    sys.exit(main())
