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
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import yaml

from pipeline.description import RECORD, Description, Grid, description_folder, table
from pipeline.graph import Box, Note, staircase
from pipeline.ledger import Entry, entries
from pipeline.origins import Lineage, trace
from pipeline.roots import root_argument, root_of
from pipeline.values import flattened


def graph(lineage: Lineage) -> bytes:
    """The stages from top to bottom, an arrow for what each one reads, models beside them."""
    boxes, labels = [], {entry.name: label for label, entry in lineage.entries.items()}
    for stage, entry in lineage.entries.items():
        tables = [f"{s.table} @ {s.version}, {s.rows:,} rows" for s in entry.tables.values()]
        lines = [*tables, *entry.manifest.checkpoints.values()]
        reads = tuple(labels[name] for name in entry.inputs.values() if name in labels)
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
    folder = description_folder(root_of(lineage.root), entry.stage, entry.manifest.content)
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
    parser.add_argument("--root", type=root_argument, required=True, help="such as artifacts/tiny")
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
