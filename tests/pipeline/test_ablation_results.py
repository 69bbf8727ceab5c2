"""What a study says: its table, its JSON and its plot tell the same numbers."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.ablation_files import write_study
from pipeline.ablation_plots import study_svg
from pipeline.ablation_results import Found, Outcome, collect, grid, markdown, to_json
from pipeline.ablations import Study
from pipeline.significance import share_interval
from pipeline.standings import Answers

TASKS = ("counting", "position")
PROMPTS = np.repeat(np.arange(20), 4)
SHARES = {("few", 0): 0.2, ("few", 1): 0.3, ("many", 0): 0.6, ("many", 1): 0.8}
NUMBERS = {"few": 80.0, "many": 8000.0}


def outcome(label: str, seed: int, asked: int = 0) -> Outcome:
    rng = np.random.default_rng([seed, len(label)])
    places = tuple((int(prompt), asked, 7) for prompt in PROMPTS)
    tasks = {
        task: Answers(rng.random(len(PROMPTS)) < SHARES[label, seed], PROMPTS, places)
        for task in TASKS
    }
    facts = {"captions": NUMBERS[label], "clusters": 0.5, "steps": 10.0, "samples": 40.0}
    return Outcome(label, seed, tasks, facts)


def study(axis: str = "captions") -> Study:
    points: list[dict[str, Any]] = [{"label": "few"}, {"label": "many", "values": {"dpo.beta": 2}}]
    return Study.model_validate(
        {"title": "How many", "axis": axis, "reference": "many", "points": points}
    )


def found(axis: str = "captions") -> Found:
    return collect("how-many", study(axis), [outcome(*key) for key in SHARES])


def right(label: str, task: str, *seeds: int) -> np.ndarray:
    return np.concatenate([outcome(label, seed).tasks[task].right for seed in seeds])


def test_a_row_pools_its_seeds_by_prompt_and_is_paired_with_the_reference() -> None:
    few, many = found().rows
    pooled = right("few", "counting", 0, 1)
    assert few.shares["counting"] == share_interval(pooled, np.tile(PROMPTS, 2))
    assert few.shares["mean"].share == pytest.approx(np.mean(list(few.seeds.values())))
    assert many.against == ()
    apart = few.against[-1]
    assert (apart.before, apart.after, apart.task) == ("many", "few", "mean")
    assert apart.difference == pytest.approx(few.shares["mean"].share - many.shares["mean"].share)
    assert (apart.prompts, apart.pictures) == (40, 320)
    assert apart.p < 0.001


def test_a_study_that_is_not_finished_says_what_is_known() -> None:
    part = collect("how-many", study(), [outcome("few", 0), outcome("few", 1), outcome("many", 1)])
    few, many = part.rows
    assert list(many.seeds) == [1]
    # Paired over the one seed that both have.
    expected = [right("few", t, 1).mean() - right("many", t, 1).mean() for t in TASKS]
    assert few.difference is not None
    assert few.difference.difference == pytest.approx(np.mean(expected))
    (alone,) = collect("how-many", study(), [outcome("few", 0)]).rows
    assert alone.against == ()


def test_points_that_were_asked_otherwise_are_not_compared() -> None:
    with pytest.raises(ValueError, match="'many' and 'few' were not asked alike"):
        collect("how-many", study(), [outcome("few", 0), outcome("many", 0, asked=1)])


def places(svg: bytes, number: int) -> list[float]:
    """The heights of the open dots, in the picture's own unit downwards."""
    uses = re.findall(r'<use [^>]*y="([\d.]+)"[^>]*stroke: #6b7280', svg.decode())
    return [float(y) for y in uses][-number:]


@pytest.mark.parametrize("axis", ["captions", "label"])
def test_the_plot_draws_the_numbers_of_the_table(axis: str) -> None:
    of_all = found(axis)
    means = [mean for row in of_all.rows for mean in row.seeds.values()]
    drawn = places(study_svg(of_all), len(means))
    assert len(drawn) == 4
    slope, _ = np.polyfit(means, drawn, 1)
    assert slope < 0
    assert np.corrcoef(means, drawn)[0, 1] == pytest.approx(-1, abs=1e-5)
    cells = {row[0]: row for row in grid(of_all).rows}
    for row in of_all.rows:
        assert cells[row.label][4] == str(row.shares["mean"])
        assert cells[row.label][5] == ", ".join(f"{mean:.3f}" for mean in row.seeds.values())
    points = {point["label"]: point for point in to_json(of_all)["points"]}
    assert points["few"]["seeds"] == {str(k): v for k, v in of_all.rows[0].seeds.items()}


def test_a_plot_is_whole_and_the_same_twice(tmp_path: Path) -> None:
    for axis in ("captions", "steps", "label"):
        svg = study_svg(found(axis))
        assert svg == study_svg(found(axis))
        text = " ".join(ElementTree.fromstring(svg).itertext())
        assert "share of correct pictures" in text
        assert "each training seed" in text
    write_study(tmp_path, found())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["how-many.json", "how-many.md", "how-many.svg"]
    page = (tmp_path / "how-many.md").read_text()
    assert page == markdown(found(), "![How many](how-many.svg)")
    assert "dpo.beta = 2" in page
