"""What other thresholds would keep, by hand."""

import numpy as np
import pyarrow as pa

from pipeline.config import ShapesJudge, VerdictsConfig
from pipeline.margins import by_threshold, histograms, nearest

CONFIG = VerdictsConfig(judge=ShapesJudge(kind="shapes"), min_alignment=0.7, min_quality=0.5)
TABLE = pa.table(
    {
        "alignment": pa.array([0.7, 0.69, 1.0, 0.9, 0.0, 0.0], pa.float32()),
        "quality": pa.array([0.9, 0.8, 0.55, 0.2, 0.9, 0.0], pa.float32()),
    }
)
SEEN = np.array([True] * 5 + [False])


def test_rows_at_the_margin_come_from_the_edge_outwards() -> None:
    assert nearest(CONFIG, TABLE, SEEN, 9) == ([0, 2], [1, 3, 4])
    assert nearest(CONFIG, TABLE, SEEN, 1) == ([0], [1])
    assert nearest(CONFIG, TABLE, ~np.ones(6, bool), 9) == ([], [])


def test_the_table_counts_what_each_threshold_would_keep() -> None:
    rows = {row[0]: row[1:] for row in by_threshold(CONFIG, TABLE, SEEN).rows}
    assert rows["0.0"] == ("4", "3", "5", "83.3%")  # a picture that nobody saw is never kept
    assert rows["0.7"] == ("2", "1", "1", "16.7%")
    assert rows["1.0"] == ("1", "0", "0", "0.0%")


def test_the_histogram_has_both_colours_where_the_threshold_cuts() -> None:
    plots = histograms(CONFIG, TABLE, SEEN)
    assert [plot.title for plot in plots] == ["The judge's alignment", "The judge's quality"]
    assert b"#16965a" in plots[0].svg
    assert b"#d43838" in plots[0].svg
    assert plots == histograms(CONFIG, TABLE, SEEN)


def test_no_row_at_all_is_no_error() -> None:
    empty = TABLE.slice(0, 0)
    none = np.zeros(0, bool)
    assert nearest(CONFIG, empty, none, 3) == ([], [])
    assert by_threshold(CONFIG, empty, none).rows[0] == ("0.0", "0", "0", "0", "0.0%")
    assert len(histograms(CONFIG, empty, none)) == 2
