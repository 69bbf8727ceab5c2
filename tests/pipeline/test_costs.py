"""The ledger of a run: what was planned, what it cost when it was made, what this run spent."""

from pathlib import Path

import pytest

from pipeline.config import RunConfig, load_run
from pipeline.cost_page import beside_paper, ledger_grid, markdown, plain, plot
from pipeline.costs import Costs, costs_of
from pipeline.description import SPACE, Description, Timing
from pipeline.plan import build_plan
from pipeline.spending import Meter
from pipeline.tables import Manifest, Shard, Snapshot

SHARD = Shard("a", 90, "s", 2_000_000, "images-1")
MANIFESTS = {
    "images": Manifest("images", "c", {"images": Snapshot("images-1", 1, "i", "c", 90, (SHARD,))}),
    "student": Manifest("student", "w", {}, {"student": "checkpoints/student-1/final"}),
    "dpo": Manifest("dpo", "v", {}, {"aligned": "checkpoints/dpo-1/final"}),
}
DESCRIPTIONS = {
    stage: Description(stage, stage, rows, rows, 0)
    for stage, rows in (("images", 90), ("student", 80), ("dpo", 7))
}


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """Pictures for 20 s, a student for 720 s on two processes; of DPO nothing is written down."""
    Meter(tmp_path, "images", 1, iter([0, 20]).__next__).charge(["images-1/a"])
    Meter(tmp_path, "student", 2, iter([0, 720]).__next__).charge(["checkpoints/student-1"])
    (tmp_path / "checkpoints/student-1/final").mkdir(parents=True)
    (tmp_path / "checkpoints/student-1/final/model.safetensors").write_bytes(b"x" * 3000)
    overrides = {"plan.device.price_per_hour": 10, "student.num_processes": 2}
    return load_run("tiny", {"root": str(tmp_path), **overrides})


def costs(run: RunConfig, **timings: Timing) -> Costs:
    return costs_of(run, build_plan(run), MANIFESTS, DESCRIPTIONS, timings)


def test_what_was_made_now_and_what_was_reused(run: RunConfig) -> None:
    found = costs(run, images=Timing(0, 90, 0.4), student=Timing(80, 0, 730), dpo=Timing(7, 0, 5))
    lines = {line.stage: line for line in found.lines}
    assert list(lines) == ["images", "student", "dpo"]
    assert (lines["images"].seconds, lines["images"].now) == (20, 0)  # reused
    assert (lines["student"].seconds, lines["student"].now) == (1440, 1460)  # two processes
    assert (lines["dpo"].seconds, lines["dpo"].now) == (None, 5)
    assert (found.seconds, found.now) == (1460, 1465)
    assert found.money(found.seconds) == pytest.approx(14600 / 3600)


def test_rows_and_bytes_are_beside_the_planned_ones(run: RunConfig) -> None:
    lines = {line.stage: line for line in costs(run).lines}
    assert (lines["images"].planned_rows, lines["images"].rows) == (18_800, 90)
    assert (lines["images"].bytes, lines["student"].bytes) == (2_000_000, 3000)
    assert lines["images"].planned_bytes == pytest.approx(10e6, rel=0.1)
    assert lines["images"].planned_seconds == pytest.approx(18_800 / 3800)


def test_the_rounds_of_a_stage_are_one_line(run: RunConfig) -> None:
    again = {**MANIFESTS, "images 2": MANIFESTS["images"]}
    described = {**DESCRIPTIONS, "images 2": DESCRIPTIONS["images"]}
    timings = {"images": Timing(9, 0, 3.0), "images 2": Timing(9, 0, 4.0)}
    found = costs_of(run, build_plan(run), again, described, timings)
    assert [line.stage for line in found.lines] == ["images", "student", "dpo"]
    assert (found.lines[0].rows, found.lines[0].now) == (180, 7)


def test_the_table_shows_planned_spent_and_now(run: RunConfig) -> None:
    grid = ledger_grid(costs(run, student=Timing(80, 0, 720)))
    rows = {row[0]: dict(zip(grid.header, row, strict=True)) for row in grid.rows}
    assert rows["student"]["min spent"] == rows["student"]["min now"] == "24.0"
    assert rows["student"]["USD spent"] == "4.00"
    assert rows["images"]["min now"] == "0"
    assert rows["dpo"]["min spent"] == "?"
    assert rows["all"]["USD now"] == "4.00"


def test_the_pages_say_the_same_and_name_the_paper(run: RunConfig) -> None:
    found = costs(run, student=Timing(80, 0, 720))
    for text in (markdown(found), plain(found)):
        assert "4.00 USD" in text.replace(SPACE, " ")
        assert "88 A100-days" in text
    assert "What is marked ?" in markdown(found)
    assert b"not written down" in plot(found)
    assert b"reused" in plot(found)
    assert beside_paper(Costs("real", found.device, ())) == ""


def test_the_figures_for_machines_add_up(run: RunConfig) -> None:
    told = costs(run, student=Timing(80, 0, 720)).to_json()
    stages, totals = told["stages"], told["totals"]
    for name in ("planned_seconds", "seconds", "now", "planned_money", "money", "money_now"):
        assert totals[name] == pytest.approx(sum(each[name] or 0 for each in stages.values()))
    assert told["paper_a100_days"] == 88
    assert told["student_a100_days"] == pytest.approx(1440 / 86_400 * 0.67 / 312)
