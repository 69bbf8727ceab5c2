"""What a person sees of the preferences: counts by comparison, verdicts, pairs side by side.

In:    the stage's tables.
Out:   its `Description`.
Rerun: the same tables give the same description.
"""

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.captions import count, spread
from pipeline.config import PairKind, RunConfig
from pipeline.description import Description, Grid, Picture
from pipeline.pictures import Cell, side_by_side
from pipeline.rounds import policy_of
from pipeline.subjects import scorer_of, values_of
from pipeline.tables import Manifest, Snapshot, read, take
from pipeline.tasks import task_of
from pipeline.verdicts import reasons

SHOWN = 12


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshots = manifest.snapshots
    names = ["caption", "kind", "keep", "reason", "winner_score", "loser_score"]
    table = read(config.root, snapshots["preferences"], names, check=False)
    rejected = [reason for reason in table["reason"].to_pylist() if reason]
    values, scorer = values_of(config), scorer_of(config)
    policy, name = policy_of(upstream)
    return Description(
        stage="preferences",
        title="Preferences",
        rows_in=len(table),
        kept=len(table) - len(rejected),
        rejected=len(rejected),
        reasons=count(rejected),
        facts={
            **{name: snapshot.label for name, snapshot in snapshots.items()},
            "content": manifest.content,
            "student": policy.checkpoints[name],
            "student's weights": policy.content,
            "judge": str(scorer.judge.kind),
            "a good sample": f"alignment {scorer.min_alignment:g}, quality {scorer.min_quality:g}",
            "least margin": f"{values.min_margin:g}",
        },
        tables=(_by_kind(table), _by_task(table), _samples_grid(config, snapshots["samples"])),
        pictures=_sheets(config, snapshots["preferences"], table),
    )


def _by_kind(table: pa.Table) -> Grid:
    cells = []
    for kind in get_args(PairKind):
        own = table.filter(pc.equal(table["kind"], kind))
        pairs = own.filter(own["keep"])
        if len(own):
            scores = [
                f"{np.mean(pairs[name].to_numpy()):.3f}" if len(pairs) else "-"
                for name in ("winner_score", "loser_score")
            ]
            cells.append((kind.replace("_", " "), f"{len(own):,}", f"{len(pairs):,}", *scores))
    header = ("comparison", "compared", "pairs", "mean winner score", "mean loser score")
    return Grid("Pairs by comparison", header, tuple(cells))


def _by_task(table: pa.Table) -> Grid:
    """Easy tasks tie more often: `dpo.balance` can make up for it."""
    rows: dict[str, list[bool]] = {}
    for caption, keep in zip(table["caption"].to_pylist(), table["keep"].to_pylist(), strict=True):
        rows.setdefault(task_of(caption), []).append(keep)
    pairs = sum(map(sum, rows.values()))
    cells = tuple(
        (
            task.replace("_", " "),
            f"{len(rows[task]):,}",
            f"{sum(rows[task]):,}",
            f"{sum(rows[task]) / max(1, pairs):.1%}",
        )
        for task in sorted(rows)
    )
    return Grid("Pairs by task", ("task", "compared", "pairs", "of all pairs"), cells)


def _samples_grid(config: RunConfig, snapshot: Snapshot) -> Grid:
    """What the judge said of the student's samples."""
    table = read(config.root, snapshot, ["alignment", "quality", "reason"], check=False)
    why = [reason or "accepted" for reason in reasons(scorer_of(config), table)]
    cells = tuple(
        (reason, f"{rows:,}", f"{rows / len(why):.1%}") for reason, rows in count(why).items()
    )
    return Grid("The student's samples, judged", ("verdict", "samples", "share"), cells)


def _sheets(config: RunConfig, snapshot: Snapshot, table: pa.Table) -> tuple[Picture, ...]:
    kept = np.flatnonzero(table["keep"].to_numpy())
    if not len(kept):
        return ()
    chosen = [int(kept[index]) for index in spread(len(kept), SHOWN)]
    names = ["caption", "winner_image", "loser_image", "winner_from", "loser_from"]
    names += ["winner_score", "loser_score"]
    rows = take(config.root, snapshot, chosen, names).to_pylist()
    sides = [
        [Cell(row[f"{side}_image"], row["caption"], _note(row, side), good) for row in rows]
        for side, good in (("winner", True), ("loser", False))
    ]
    return (Picture("Pairs", side_by_side("Better", sides[0], "Worse", sides[1])),)


def _note(row: Mapping[str, Any], side: str) -> str:
    return f"{row[f'{side}_from']}: {row[f'{side}_score']:.2f}"
