import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace as Record

import pytest

from pipeline.costs import Cost, Costs
from pipeline.description import Description, Grid, Picture, Plot, Timing
from pipeline.pictures import Cell, contact_sheet
from pipeline.rates import DEVICES
from pipeline.report import best_samples, build_report, html, markdown, write_report
from pipeline.significance import Comparison, Interval
from pipeline.standings import Evidence

SHEETS = [contact_sheet([Cell(None, name)]) for name in ("pictures", "samples")]
SNAPSHOT = Record(table="images-ab12", version=3, tag="t", content="c" * 64, rows=9, shards=())
MANIFESTS = {
    "images": Record(snapshots={"images": SNAPSHOT}, checkpoints={}),
    "dpo": Record(snapshots={}, checkpoints={"aligned": "checkpoints/dpo-ab12/final"}),
}
DESCRIPTIONS = {
    "images": Description(
        "images",
        "Pictures drawn",
        9,
        7,
        2,
        {"blank": 2},
        {"licence": "MIT"},
        (Grid("Captions", ("caption",), (("<script>alert(1)</script> & more",),)),),
        (Picture("Sheet", SHEETS[0]),),
    ),
    "dpo": Description(
        "dpo",
        "Aligned",
        7,
        7,
        0,
        pictures=(Picture("After", SHEETS[1]),),
        plots=(Plot("Loss", b"<svg/>"),),
    ),
}
TIMINGS = {"images": Timing(5, 4, 2.0)}
SCORES = {
    "student": {"counting": 0.5, "position": 0.25},
    "aligned": {"counting": 0.75, "position": 0.125},
}


class Tags(HTMLParser):
    """Every tag opened, what it points at, and those left open."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [v or "" for k, v in attributes if k in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def write(root: Path, **values: object) -> Path:
    given = {"manifests": MANIFESTS, "descriptions": DESCRIPTIONS, "timings": TIMINGS}
    config = Record(name="tiny", root=str(root), note=values.pop("note", ""))
    return write_report(config, **(given | {"scores": SCORES} | values))  # type: ignore[arg-type]


def test_the_json_holds_the_numbers_of_the_stages(tmp_path: Path) -> None:
    report = json.loads((write(tmp_path).parent / "report.json").read_text())
    assert list(report) == ["schema", "run", "stages", "scores", "totals"]
    assert (report["schema"], report["run"]) == (1, "tiny")
    assert report["stages"]["images"] == {
        "rows_in": 9,
        "kept": 7,
        "rejected": 2,
        "reasons": {"blank": 2},
        "made": 5,
        "reused": 4,
        "seconds": 2.0,
        "tables": {
            "images": {"table": "images-ab12", "version": 3, "rows": 9, "content": "c" * 64}
        },
        "checkpoints": {},
        "facts": {"licence": "MIT"},
    }
    assert report["stages"]["dpo"]["made"] is None
    assert report["stages"]["dpo"]["checkpoints"] == {"aligned": "checkpoints/dpo-ab12/final"}
    assert report["totals"] == {
        "rows_in": 16,
        "kept": 14,
        "rejected": 2,
        "made": 5,
        "reused": 4,
        "seconds": 2.0,
    }


def test_the_mean_is_over_the_tasks_and_a_given_one_is_kept(tmp_path: Path) -> None:
    given = SCORES | {"other": {"counting": 0.5, "mean": 0.4}}
    report = build_report("tiny", {}, {}, {}, given)
    assert report["scores"]["student"]["mean"] == 0.375
    assert report["scores"]["aligned"]["mean"] == 0.4375
    assert report["scores"]["other"]["mean"] == 0.4


def test_the_page_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert all(source.startswith(("data:image/", "#")) for source in tags.sources)
    assert "http" not in re.sub(r"data:image/[^\"]*", "", text)
    assert text.count("data:image/jpeg") == 2


def test_text_of_the_data_is_escaped(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text


def test_the_page_shows_scores_and_their_difference(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    for number in ("0.500", "0.750", "+0.250", "-0.125", "+0.0625"[:6]):
        assert number in text


def test_the_cost_ledger_is_in_both_files(tmp_path: Path) -> None:
    line = Cost("images", 10, 9, 5e6, 4_000_000, 36.0, 72.0, 0.0)
    device = DEVICES["cuda"].model_copy(update={"price_per_hour": 100.0})
    page = write(tmp_path, costs=Costs("tiny", device, (line,)))
    ledger = json.loads((page.parent / "report.json").read_text())["ledger"]
    assert ledger["stages"]["images"]["money"] == 2.0
    assert ledger["stages"]["images"]["money_now"] == 0.0
    tags, text = Tags(), page.read_text()
    tags.feed(text)
    assert tags.open == []
    assert "2.00 USD for all that it shows" in text
    assert "planned and spent time by stage" in text


def test_samples_are_the_latest_stages_first_sheet(tmp_path: Path) -> None:
    assert (write(tmp_path).parent / "samples.jpg").read_bytes() == SHEETS[1]
    assert best_samples({"images": DESCRIPTIONS["images"]}) == SHEETS[0]
    assert best_samples({}) is None


def test_only_whole_files_lie_in_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path).parent
    write(tmp_path)
    assert folder == tmp_path / "report"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["report.html", "report.json", "samples.jpg"]


@pytest.mark.parametrize("scores", [None, {"student": {"counting": 0.5}}])
def test_a_run_that_ends_early_has_a_report(
    tmp_path: Path, scores: dict[str, dict[str, float]] | None
) -> None:
    captions = {"captions": Description("captions", "Captions", 0, 0, 0)}
    page = write(tmp_path, manifests={}, descriptions=captions, timings={}, scores=scores)
    assert "Captions" in page.read_text()
    assert not (page.parent / "samples.jpg").exists()


def test_a_note_stands_before_everything_else(tmp_path: Path) -> None:
    page = write(tmp_path, note="its pictures are <noise>").read_text()
    assert page.index("its pictures are &lt;noise&gt;") < page.index('<div class="tiles"')
    report = build_report("tiny", {}, {}, {}, note="noise")
    assert markdown(report, {}).startswith("# The run tiny\n\n> noise\n")
    assert "<blockquote>" not in write(tmp_path).read_text()


def test_the_artifact_of_the_run_has_scores_samples_and_stages() -> None:
    report = build_report("tiny", MANIFESTS, DESCRIPTIONS, TIMINGS, SCORES)  # type: ignore[arg-type]
    text = markdown(report, DESCRIPTIONS)
    for expected in (
        "# The run tiny",
        "| counting | 0.500 | 0.750 | +0.250 |",
        "| images | 9 | 7 | 2 | 5 | 4 | 2.0 |",
        "| dpo | 7 | 7 | 0 | - | - | - |",
        "data:image/jpeg",
    ):
        assert expected in text, expected
    assert html(report, DESCRIPTIONS).startswith("<!doctype html>")


def evidence() -> Evidence:
    shares = {name: {**tasks, "mean": 0.4} for name, tasks in SCORES.items()}
    intervals = {
        name: {task: Interval(share, share - 0.1, share + 0.1) for task, share in tasks.items()}
        for name, tasks in shares.items()
    }
    row = Comparison("student", "aligned", "counting", 0.25, 0.1, 0.4, 0.003, 9, 2, 0.06, 10, 40)
    strict = {name: {"mean": Interval(0.3, 0.2, 0.35)} for name in SCORES}
    return Evidence(intervals, (row,), strict, (row,))


def test_intervals_and_comparisons_stand_in_the_report(tmp_path: Path) -> None:
    page = write(tmp_path, evidence=evidence())
    report = json.loads((page.parent / "report.json").read_text())
    assert report["intervals"]["student"]["counting"] == pytest.approx([0.4, 0.6])
    assert report["comparisons"][0]["p"] == 0.003
    assert report["comparisons"][0]["gained"] == 9
    assert "0.400–0.600" in page.read_text()
    told = build_report("tiny", MANIFESTS, DESCRIPTIONS, TIMINGS, SCORES, evidence())
    assert "0.500 (0.400–0.600)" in markdown(told, DESCRIPTIONS)


def test_the_strict_mean_stands_below_the_mean(tmp_path: Path) -> None:
    page = write(tmp_path, evidence=evidence())
    report = json.loads((page.parent / "report.json").read_text())
    assert report["strict"]["aligned"]["mean"] == pytest.approx([0.3, 0.2, 0.35])
    assert report["strict_comparisons"] == report["comparisons"]
    assert "0.200–0.350" in page.read_text()
    text = markdown(report, DESCRIPTIONS)
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| mean")]
    assert rows == ["| mean", "| mean, no object too many"]
