"""Two records of runs, side by side: which stage differs, by which value, and what it changed.

In:    two entries of ledgers, each with all that it came from; they may be of different roots.
Out:   `Comparison`: for each stage whether it is the same, the values, models and code that differ,
       counts and scores of both; as Markdown, JSON and bars.
Rerun: reads only.

    python -m pipeline.comparison artifacts/tiny:evaluate-12ab artifacts/tiny
    python -m pipeline.comparison artifacts/tiny                # its two newest evaluations
"""

import argparse
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import evaluation
from pipeline.buckets import SCHEME
from pipeline.description import RECORD, Description, Grid, description_folder, table
from pipeline.ledger import Entry, entries, entry_named, newest, section_of, with_inputs
from pipeline.plots import score_bars
from pipeline.preflight import SECTIONS
from pipeline.roots import root_of
from pipeline.standings import summarise
from pipeline.tables import read
from pipeline.values import flattened

SAME, SAME_ROWS = "the same", "other values, the same result"
OTHER_VALUES, OTHER_CODE = "other values", "other code"
OTHER_INPUTS, OTHER_ROWS, ONLY_ONE = "other inputs", "other rows", "in one only"

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Side:
    """One record: a root and an entry with all that it came from."""

    root: str
    entries: Mapping[str, Entry]

    @property
    def last(self) -> Entry:
        return list(self.entries.values())[-1]

    def __str__(self) -> str:
        return f"{self.root}:{self.last.name}"


@dataclass(frozen=True)
class Change:
    """One value, model or package that differs."""

    place: str
    first: str
    second: str


@dataclass(frozen=True)
class StageComparison:
    stage: str
    verdict: str
    changes: tuple[Change, ...] = ()
    counts: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    stages: tuple[StageComparison, ...]
    scores: tuple[Scores, Scores]

    @property
    def cause(self) -> str:
        """One sentence: where the two begin to differ, and by what."""
        apart = [s for s in self.stages if s.verdict not in (SAME, SAME_ROWS)]
        if not apart:
            return "Every stage left the same."
        start = apart[0]
        why = "; ".join(f"{c.place} {c.first} against {c.second}" for c in start.changes[:4])
        more = f" and {len(start.changes) - 4} more" if len(start.changes) > 4 else ""
        how = f"{start.verdict}: {why}{more}" if why else start.verdict
        return f"They first differ at {start.stage} ({how})."


def side_of(reference: str) -> Side:
    """`root` (its newest entry) or `root:entry`; ValueError names what is not there."""
    scheme = SCHEME if reference.startswith(SCHEME) else ""
    root, _, name = reference.removeprefix(scheme).partition(":")
    root = scheme + root
    place = root_of(root)
    if not (place / "ledger").is_dir():
        raise ValueError(f"{root} has no ledger: give the root of a run, such as artifacts/tiny")
    entry = entry_named(place, name) if name else newest(place)
    return Side(root, with_inputs(place, entry))


def newest_two(root: Path, run: str | None = None) -> tuple[Side, Side]:
    """The last entry of a run, and the one of the same stage that was asked for before it."""
    last = newest(root, run)
    before = [e for e in entries(root) if e.stage == last.stage and e.name != last.name]
    if not before:
        raise ValueError(
            f"the ledger in {root} has one entry of {last.stage}: nothing to compare it with; "
            "run the same with another value, or name another root"
        )
    return Side(str(root), with_inputs(root, before[-1])), Side(str(root), with_inputs(root, last))


def compare(first: Side, second: Side) -> Comparison:
    there = [*first.entries, *second.entries]
    stages = [
        *(s for s in SECTIONS if s in there),
        *dict.fromkeys(s for s in there if s not in SECTIONS),
    ]
    return Comparison(
        str(first),
        str(second),
        tuple(_stage(stage, first, second) for stage in stages),
        (_scores(first), _scores(second)),
    )


def _stage(stage: str, first: Side, second: Side) -> StageComparison:
    one, other = first.entries.get(stage), second.entries.get(stage)
    if one is None or other is None:
        return StageComparison(stage, ONLY_ONE)
    counts = _changes(_counts(first, one), _counts(second, other))
    values = _changes(_values(stage, one), _values(stage, other))
    if one.manifest.content == other.manifest.content:
        return StageComparison(stage, SAME_ROWS if values else SAME, values, counts)
    models = _changes(dict(flattened(one.models)), dict(flattened(other.models)))
    if changes := (*values, *(c for c in models if not c.place.endswith((".name", ".revision")))):
        return StageComparison(stage, OTHER_VALUES, changes, counts)
    if any(_content(first, above) != _content(second, above) for above in one.inputs):
        return StageComparison(stage, OTHER_INPUTS, (), counts)
    code = _changes(one.maker, other.maker)
    return StageComparison(stage, OTHER_CODE if code else OTHER_ROWS, code, counts)


def _values(stage: str, entry: Entry) -> dict[str, object]:
    return dict(flattened(entry.values, section_of(stage)))


def _content(side: Side, stage: str) -> str:
    return side.entries[stage].manifest.content if stage in side.entries else ""


def _counts(side: Side, entry: Entry) -> dict[str, object]:
    """What came in, stayed and left and why, from the stage's description."""
    folder = description_folder(root_of(side.root), entry.stage, entry.manifest.content)
    if not (folder / RECORD).is_file():
        return {}
    told = Description.load(folder)
    reasons = {f"rejected: {why}": number for why, number in told.reasons.items()}
    return {"rows in": told.rows_in, "kept": told.kept, "rejected": told.rejected, **reasons}


def _changes(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[Change, ...]:
    return tuple(
        Change(place, _shown(one, place), _shown(other, place))
        for place in dict.fromkeys([*one, *other])
        if _shown(one, place) != _shown(other, place)
    )


def _shown(values: Mapping[str, object], place: str) -> str:
    return str(values[place]) if place in values else "-"


def _scores(side: Side) -> dict[str, dict[str, float]]:
    entry = side.entries.get(evaluation.STAGE)
    if entry is None:
        return {}
    names = ["evaluator", "checkpoint", "task", "correct"]
    snapshot = entry.tables[evaluation.STAGE]
    return summarise(read(root_of(side.root), snapshot, names, check=False))


# --- what a person sees -------------------------------------------------------------------------


def bars(comparison: Comparison) -> bytes | None:
    """Every task of the last checkpoint of both."""
    first, second = (list(scores.values())[-1:] for scores in comparison.scores)
    if not first or not second or set(first[0]) != set(second[0]):
        return None
    return score_bars(first[0], second[0], labels=("first", "second"))


def markdown(comparison: Comparison) -> str:
    parts = [
        "# Two runs compared",
        f"first: `{comparison.first}`\n\nsecond: `{comparison.second}`",
        f"**{comparison.cause}**",
    ]
    rows = tuple(
        (s.stage, s.verdict, str(len(s.changes) or "-"), _gist(s)) for s in comparison.stages
    )
    parts.append(table(Grid("", ("stage", "verdict", "values that differ", "kept"), rows)))
    for stage in comparison.stages:
        for title, changes in (("Values", stage.changes), ("Counts", stage.counts)):
            if changes:
                cells = tuple((c.place, c.first, c.second) for c in changes)
                grid = Grid("", ("what", "first", "second"), cells)
                parts.append(f"### {title} of {stage.stage}\n\n{table(grid)}")
    scores = scores_grid(comparison)
    if scores.rows:
        parts.append(f"### Share of correct pictures\n\n{table(scores)}")
    return "\n\n".join(parts) + "\n"


def _gist(stage: StageComparison) -> str:
    kept = [c for c in stage.counts if c.place == "kept"]
    return f"{kept[0].first} against {kept[0].second}" if kept else "equal"


def scores_grid(comparison: Comparison) -> Grid:
    """A row a checkpoint and task."""
    first, second = comparison.scores
    rows = []
    for checkpoint in dict.fromkeys([*first, *second]):
        one, other = first.get(checkpoint, {}), second.get(checkpoint, {})
        for task in dict.fromkeys([*one, *other]):
            shares = [f"{s[task]:.3f}" if task in s else "-" for s in (one, other)]
            both = task in one and task in other
            difference = f"{other[task] - one[task]:+.3f}" if both else "-"
            rows.append((checkpoint, task.replace("_", " "), *shares, difference))
    return Grid("", ("checkpoint", "task", "first", "second", "difference"), tuple(rows))


def main(words: Collection[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.comparison", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("first", help="a root, or root:entry (python -m pipeline.lineage --list)")
    parser.add_argument("second", nargs="?", help="another; without it, the root's two newest")
    parser.add_argument("--svg", type=Path, help="write the bars of the scores here")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(None if words is None else list(words))
    try:
        if args.second:
            sides = side_of(args.first), side_of(args.second)
        else:
            sides = newest_two(root_of(args.first))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    comparison = compare(*sides)
    if args.svg and (picture := bars(comparison)):
        args.svg.write_bytes(picture)
    if args.json:
        print(json.dumps(asdict(comparison) | {"cause": comparison.cause}, indent=1))
    else:
        print(markdown(comparison))
    return 0


if __name__ == "__main__":
    sys.exit(main())
