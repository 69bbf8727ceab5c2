from pathlib import Path

import numpy as np
import pytest

from pipeline.description import (
    MAX_MARKDOWN_BYTES,
    MAX_TABLE_ROWS,
    RECORD,
    SPACE,
    Description,
    Grid,
    Picture,
    Plot,
    Timing,
    description_folder,
    numeric_columns,
    share_bar,
)
from pipeline.pictures import Cell, contact_sheet
from pipeline.plots import loss_plot

TIMING = Timing(made=8, reused=2, seconds=4.0)


def sheet(seed: int = 0, num: int = 24) -> bytes:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (num, 64, 64, 3), dtype=np.uint8)
    return contact_sheet([Cell(picture, "a red circle") for picture in pictures])


def described(**values: object) -> Description:
    given = {
        "stage": "verdicts",
        "title": "Pictures judged",
        "rows_in": 10,
        "kept": 7,
        "rejected": 3,
        "reasons": {"wrong colour": 1, "wrong count": 2},
        "facts": {"table": "verdicts-ab12 @ version 1", "licence": "MIT"},
        "tables": (Grid("By task", ("task", "kept"), (("counting", "4"), ("colours", "3"))),),
        "pictures": (Picture("Kept and rejected", sheet(num=2)),),
        "plots": (Plot("Loss", loss_plot([0, 1], [1.0, 0.5])),),
    }
    return Description(**(given | values))  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = description_folder(tmp_path, "verdicts", "0123456789abcdef0123")
    described().save(folder)
    described().save(folder)
    assert folder.name == "verdicts-0123456789abcdef"
    assert Description.load(folder) == described()
    names = sorted(path.name for path in folder.iterdir())
    assert names == [RECORD, "picture-0.jpg", "plot-0.svg"]


def test_rows_in_must_be_kept_and_rejected() -> None:
    with pytest.raises(ValueError, match="10 rows in, but 7 kept and 2 rejected"):
        described(rejected=2, reasons={})
    with pytest.raises(ValueError, match="3 rows rejected, but the reasons count 1"):
        described(reasons={"wrong colour": 1})


def test_the_page_tells_counts_reasons_time_and_lineage() -> None:
    text = described().markdown(TIMING, run="tiny").replace(SPACE, " ")
    for expected in (
        "# Pictures judged",
        "`verdicts/tiny`",
        "**10** rows in",
        "**7** kept",
        "**3** rejected",
        "**8** made",
        "**2** reused",
        "**4.0** seconds",
        "**2** rows a second",
        "| wrong count | 2 | 20.0% |",
        "| counting | 4 |",
        "| licence | MIT |",
        "](data:image/jpeg;base64,",
        "](data:image/svg+xml;base64,",
    ):
        assert expected in text, expected
    assert text.index("wrong count") < text.index("wrong colour")


def test_the_page_uses_only_what_the_ui_shows() -> None:
    text = described().markdown(TIMING)
    assert "<svg" not in text
    assert "style=" not in text


def test_without_a_timing_the_page_speaks_of_rows_alone() -> None:
    assert "seconds" not in described().markdown()


def test_text_of_the_data_is_no_markup() -> None:
    grid = Grid("", ("caption",), (("a | b\nc <img src=x> [d](e) `f` *g*",),))
    row = described(tables=(grid,)).markdown().splitlines()
    (line,) = [line for line in row if line.startswith("| a ")]
    assert line == (r"| a \| b c &lt;img src=x&gt; \[d\](e) \`f\` \*g\* |")


def test_columns_of_numbers_stand_on_the_right() -> None:
    grid = Grid("", ("task", "gain"), (("counting", "+0.11"), ("colours", "-0.01")))
    assert "| --- | ---: |" in described(tables=(grid,)).markdown()


def test_a_number_with_its_interval_stands_on_the_right() -> None:
    rows = (("0.557 (0.520–0.595)", "<0.0001", "a (b)"), ("0.100 (0.050–0.195)", "0.2", "c"))
    assert numeric_columns(Grid("", ("share", "p", "what"), rows)) == [True, True, False]


def test_the_first_sheet_stands_above_the_tables_and_the_others_below() -> None:
    sheets = tuple(Picture(name, contact_sheet([Cell(None, name)])) for name in ("one", "two"))
    grid = Grid("numbers", ("n",), (("1",),))
    page = Description("images", "Images", 1, 1, 0, tables=(grid,), pictures=sheets).markdown()
    assert page.index("### one") < page.index("### numbers") < page.index("### two")


def test_a_long_table_is_cut_and_says_so() -> None:
    grid = Grid("", ("caption",), tuple((f"caption {n}",) for n in range(MAX_TABLE_ROWS + 40)))
    assert "| 40 more rows |" in described(tables=(grid,)).markdown()


@pytest.mark.parametrize("num", [3, 6, 40])
def test_a_page_never_outgrows_the_ui(num: int) -> None:
    pictures = tuple(Picture(f"sheet {n}", sheet(n)) for n in range(min(num, 6)))
    pictures = (pictures * 7)[:num]
    text = described(pictures=pictures).markdown(TIMING, run="tiny")
    assert len(text.encode()) <= MAX_MARKDOWN_BYTES
    assert text.count("data:image/jpeg") >= 3
    assert ("more in the run's report" in text) == (text.count("data:image/jpeg") < num)


def test_large_plots_go_before_the_last_picture() -> None:
    plots = tuple(Plot(f"plot {n}", b"<svg>" + b"x" * 100_000 + b"</svg>") for n in range(4))
    text = described(plots=plots).markdown()
    assert len(text.encode()) <= MAX_MARKDOWN_BYTES
    assert "data:image/jpeg" in text


def test_a_stage_without_rows_has_a_page() -> None:
    empty = Description("captions", "Captions", 0, 0, 0)
    assert "**0** rows in" in empty.markdown(Timing(0, 0, 0.0)).replace(SPACE, " ")
    assert b"nan" not in share_bar(empty)


def test_the_rate_is_of_rows_made() -> None:
    assert TIMING.rate == 2.0
    assert Timing(0, 5, 1.0).rate == 0.0
    assert Timing(5, 0, 0.0).rate == 0.0
