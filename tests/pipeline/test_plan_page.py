"""What a person reads of a plan: every figure of it, nothing that breaks the page."""

import pytest

from pipeline.already import There
from pipeline.config import load_run
from pipeline.description import MAX_MARKDOWN_BYTES, SPACE
from pipeline.plan import Plan, build_plan
from pipeline.plan_page import aligned, beside_paper, headline, markdown, plain, stages_grid
from pipeline.tables import Manifest


@pytest.fixture(scope="module")
def full() -> Plan:
    run = load_run("full", {"captions.sources.6.enabled": True})
    return build_plan(run, lacking={"features": ["features.text_encoder: get_it | with [hf]"]})


def test_the_table_has_a_line_a_stage_and_their_sum(full: Plan) -> None:
    grid = stages_grid(full)
    assert grid.header == (
        "stage", "rows in", "kept", "there already", "GB", "hours", "USD"
    )  # fmt: skip
    rows = {row[0]: row[1:] for row in grid.rows}
    assert rows["captions"] == ("?", "≤ 2,000,000", "-", "?", "?", "?")
    assert rows["student"][0] == "≤ 1,600,000"
    assert rows["student"][-2:] == ("1,040", "2,079")
    assert rows["evaluate"][:2] == ("6,636", "")
    assert rows["all"][-2:] == (f"{full.seconds / 3600:,.0f}", f"{full.seconds / 1800:,.0f}")


def test_the_page_says_what_a_run_must_know_before_it_is_paid(full: Plan) -> None:
    text = markdown(full)
    assert len(text.encode()) < MAX_MARKDOWN_BYTES
    for words in (
        "**Caution.** sharegpt4v (CC-BY-NC-4.0): NON-COMMERCIAL",
        "- features: stabilityai/stable-diffusion-3.5-large: Stability-Community (free",
        r"- features.text\_encoder: get\_it \| with \[hf\]",
        "204,800,000 seen at 256 px",
        "at least 69.6 days".replace(" ", SPACE),
        "88 A100-days (4,224 USD at this price)",
        "data:image/svg+xml;base64,",
    ):
        assert words in text, words


def test_the_terminal_has_the_same_without_markup(full: Plan) -> None:
    text = plain(full)
    assert "**" not in text
    assert SPACE not in text
    assert "licence: images: black-forest-labs/FLUX.1-schnell: Apache-2.0" in text
    assert "missing: features.text_encoder: get_it | with [hf]" in text
    assert "caution: sharegpt4v" in text


def test_the_columns_of_the_terminals_table_stand_below_each_other(full: Plan) -> None:
    lines = aligned(stages_grid(full)).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_stage_that_is_there_is_shown_so() -> None:
    there = {"images": There(Manifest("images", "c"), 9, 9), "verdicts": There(rows=5, of=10)}
    plan = build_plan(load_run("tiny"), there)
    rows = {row[0]: row for row in stages_grid(plan).rows}
    assert rows["images"][3:] == ("all", "0", "0", "0")
    assert rows["verdicts"][3] == "5 of 10"
    assert "of work is there already" in headline(plan).replace(SPACE, " ")
    assert "Stages that are there cost nothing again." in markdown(plan)


def test_a_run_without_a_student_is_beside_no_paper() -> None:
    assert beside_paper(build_plan(load_run("real"))) == ""
    unknown = build_plan(load_run("full", {"features.autoencoder": "some/other"}))
    assert "are at least **" in beside_paper(unknown)
    assert "one part in" in beside_paper(build_plan(load_run("tiny")))
