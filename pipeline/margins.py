"""Margins: where thresholds cut the judge's scores, what others would keep, who stands at the edge.

In:    every picture with its scores and why it is rejected (`verdicts.judged_images`).
Out:   a histogram a score, a table of thresholds, the rows nearest to the edge on both sides.
Rerun: the same rows give the same; a threshold is no part of the tables.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import VerdictsConfig
from pipeline.description import Grid, Plot
from pipeline.plots import histogram

TITLES = {"clip": "CLIPScore", "aesthetic": "CLIP's aesthetic score"}
STEPS = tuple(round(0.1 * step, 1) for step in range(11))
BINS = 20


def scores_of(table: pa.Table) -> dict[str, NDArray[np.float32]]:
    """The judge's scores and, where the table has them, a CLIP's."""
    names = ("alignment", "quality", "clip", "aesthetic")
    return {name: table[name].to_numpy() for name in names if name in table.column_names}


def thresholds_of(config: VerdictsConfig) -> dict[str, np.float32]:
    """Rounded as the scores are."""
    return {
        "alignment": np.float32(config.min_alignment),
        "quality": np.float32(config.min_quality),
        "clip": np.float32(config.min_clip),
        "aesthetic": np.float32(config.min_aesthetic),
    }


def histograms(
    config: VerdictsConfig, table: pa.Table, seen: NDArray[np.bool_]
) -> tuple[Plot, ...]:
    thresholds = thresholds_of(config)
    return tuple(
        Plot(
            TITLES.get(name, f"The judge's {name}"),
            histogram(values[seen].tolist(), BINS, name, float(thresholds[name])),
        )
        for name, values in scores_of(table).items()
    )


def by_threshold(config: VerdictsConfig, table: pa.Table, seen: NDArray[np.bool_]) -> Grid:
    """How many rows each threshold keeps: of one score with the others as set, and of all."""
    thresholds, scores = thresholds_of(config), scores_of(table)
    cells = []
    for step in STEPS:
        one = {name: {**thresholds, name: np.float32(step)} for name in scores}
        every = dict.fromkeys(scores, np.float32(step))
        counts = [int(passing(scores, each, seen).sum()) for each in (*one.values(), every)]
        share = f"{counts[-1] / max(1, len(table)):.1%}"
        cells.append((f"{step:.1f}", *(f"{count:,}" for count in counts), share))
    together = "kept by both" if len(scores) == 2 else "kept by all"
    header = ("from", *(f"kept by {name}" for name in scores), together, "share")
    return Grid("What other thresholds would keep", header, tuple(cells))


def passing(
    scores: Mapping[str, NDArray[np.float32]],
    thresholds: Mapping[str, np.float32],
    seen: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    passed = seen.copy()
    for name, values in scores.items():
        passed &= values >= thresholds[name]
    return passed


def nearest(
    config: VerdictsConfig, table: pa.Table, seen: NDArray[np.bool_], most: int
) -> tuple[list[int], list[int]]:
    """Rows just kept and just rejected, from the edge outwards."""
    thresholds, scores = thresholds_of(config), scores_of(table)
    margin = np.min([scores[name] - thresholds[name] for name in scores], axis=0)
    kept, rejected = np.flatnonzero(seen & (margin >= 0)), np.flatnonzero(seen & (margin < 0))
    inside = kept[np.argsort(margin[kept], kind="stable")]
    outside = rejected[np.argsort(-margin[rejected], kind="stable")]
    return inside[:most].tolist(), outside[:most].tolist()
