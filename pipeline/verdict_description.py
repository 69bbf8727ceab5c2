"""What a person sees of the verdicts: counts, thresholds, histograms, pictures on both sides.

In:    the verdicts of a run beside its images.
Out:   their `Description`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.captions import spread
from pipeline.config import RunConfig
from pipeline.description import Description, Grid, Picture
from pipeline.margins import by_threshold, histograms, nearest, scores_of, thresholds_of
from pipeline.pictures import Cell, side_by_side
from pipeline.tables import Manifest, Snapshot, read, take
from pipeline.verdicts import CLIP, STAGE, judged, seen, words_of

SHOWN = 12  # kept, and rejected; at the margin, just kept and just rejected


def describe_verdicts(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    assert config.verdicts is not None
    values, snapshot = config.verdicts, manifest.snapshots[STAGE]
    upstream = {**upstream, STAGE: manifest}
    table = judged(config, upstream)
    judged_ones = seen(table["why"])
    counted = pc.value_counts(table["why"]).to_pylist()
    reasons = {each["values"]: each["counts"] for each in counted if each["values"]}
    rejected = sum(reasons.values())
    return Description(
        stage=STAGE,
        title="Verdicts",
        rows_in=len(table),
        kept=len(table) - rejected,
        rejected=rejected,
        reasons=dict(sorted(reasons.items())),
        facts={
            "table": snapshot.label,
            "content": snapshot.content,
            "images": upstream["images"].snapshots["images"].label,
            **_judge_facts(config, "judge", snapshot),
            **(_judge_facts(config, CLIP, manifest.snapshots[CLIP]) if values.clip else {}),
            "accepted from": ", ".join(
                f"{name} {thresholds_of(values)[name]:g}" for name in scores_of(table)
            ),
        },
        tables=(_by_size(table), by_threshold(values, table, judged_ones)),
        pictures=(
            _sheet(config, upstream, table),
            _margin(config, upstream, table, nearest(values, table, judged_ones, SHOWN)),
        ),
        plots=histograms(values, table, judged_ones),
    )


def _judge_facts(config: RunConfig, name: str, snapshot: Snapshot) -> dict[str, str]:
    table = read(config.root, snapshot, ["judge", "judge_revision"], check=False)
    who, revision = (", ".join(table[column].unique().to_pylist()) for column in table.column_names)
    return {name: who, f"{name} revision": revision}


def _by_size(table: pa.Table) -> Grid:
    width, passed = table["width"].to_numpy(), table["accepted"].to_numpy()
    scores = scores_of(table)
    cells = []
    for size in dict.fromkeys(width.tolist()):
        own = width == size
        kept = int((own & passed).sum())
        means = [f"{scores[name][own].mean():.3f}" for name in scores]
        share = f"{kept / own.sum():.1%}"
        cells.append((f"{size} px", f"{own.sum():,}", f"{kept:,}", share, *means))
    header = ("size", "pictures", "kept", "share", *(f"mean {name}" for name in scores))
    return Grid("By size", header, tuple(cells))


def _sheet(config: RunConfig, upstream: Mapping[str, Manifest], table: pa.Table) -> Picture:
    passed = table["accepted"].to_numpy()
    sides = []
    for rows in (np.flatnonzero(passed), np.flatnonzero(~passed)):
        chosen = [int(rows[index]) for index in spread(len(rows), SHOWN)]
        sides.append(_cells(config, upstream, table, chosen))
    return Picture("Kept and rejected", side_by_side("Kept", sides[0], "Rejected", sides[1]))


def _margin(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    table: pa.Table,
    rows: tuple[list[int], list[int]],
) -> Picture:
    """The pictures that another threshold would move first, with their scores."""
    inside, outside = (_cells(config, upstream, table, side, scores=True) for side in rows)
    sheet = side_by_side("Just kept", inside, "Just rejected", outside)
    return Picture("At the margin", sheet)


def _cells(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    table: pa.Table,
    rows: Sequence[int],
    *,
    scores: bool = False,
) -> list[Cell]:
    images = upstream["images"].snapshots["images"]
    shown = take(config.root, images, rows, ["image", "caption"]).to_pylist()
    said = table.take(pa.array(rows, pa.int64())).to_pylist()
    words = words_of(config, upstream, rows)
    return [
        Cell(
            picture["image"],
            picture["caption"],
            _scores(row) if scores else _note(row["why"], text),
            row["accepted"],
        )
        for picture, row, text in zip(shown, said, words, strict=True)
    ]


def _scores(row: Mapping[str, float]) -> str:
    return f"{row['alignment']:.2f} aligned, {row['quality']:.2f} good"


def _note(why: str, words: str) -> str:
    return f"{why}: {words}" if why else ""
