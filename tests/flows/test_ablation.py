"""The ablation flow: points share what they can, and a study goes on where it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.ablation import ablate
from tests.flows.conftest import AS_MADE, WriteRun
from tests.flows.test_distillation import files

pytestmark = pytest.mark.slow
STUDY: dict[str, Any] = {
    "title": "Captions",
    "axis": "captions",
    "reference": "all",
    "points": [
        {"label": "half", "values": {"student.subset": {"share": 0.5, "seed": "$seed"}}},
        {"label": "all"},
    ],
}
EARLY = {"label": "early", "values": {"student.until": 4}}


@pytest.fixture
def studied(made: tuple[Path, Any], write_run: WriteRun, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the finished run, and a file with one study of it."""
    shutil.copytree(made[0].parent / AS_MADE, tmp_path / "artifacts")
    return write_run(tmp_path), studies(tmp_path, STUDY)


def studies(folder: Path, study: dict[str, Any]) -> Path:
    path = folder / "studies.yaml"
    path.write_text(yaml.safe_dump({"studies": {"data": study}}))
    return path


def data_files(root: Path) -> dict[str, str]:
    """Of the tables above the student."""
    above = (
        "tables/captions",
        "tables/images",
        "tables/verdicts",
        "tables/text",
        "tables/features",
    )
    found = {name: total for name, total in files(root).items() if name.startswith(above)}
    assert len(found) >= 5
    return found


def trainings(root: Path) -> set[str]:
    return {path.name for path in (root / "checkpoints").glob("student-*")}


def test_a_study_makes_what_differs_and_an_added_point_itself_alone(
    studied: tuple[Path, Path],
) -> None:
    run, given = studied
    root = run.parent / "artifacts"
    before, there = data_files(root), trainings(root)
    found = ablate(run=str(run), study="data", studies=str(given))["data"]
    assert data_files(root) == before
    assert len(trainings(root) - there) == 1  # the other point is the run's own student
    assert [point["label"] for point in found["points"]] == ["half", "all"]
    assert json.loads((root / "report/ablations/data.json").read_text()) == found
    there = trainings(root)
    more = studies(run.parent, {**STUDY, "points": [*STUDY["points"], EARLY]})
    again = ablate(run=str(run), studies=str(more))["data"]
    (added,) = trainings(root) - there
    assert added.endswith(".4")
    assert again["points"][:2] == found["points"]
    assert again["points"][2]["steps"] == 4


def test_a_round_by_need_goes_on_from_its_point(studied: tuple[Path, Path]) -> None:
    run, _ = studied
    root = run.parent / "artifacts"
    phase = {"image_size": 64, "steps": 2, "batch_size": 8, "optimizer": {"learning_rate": 1e-4}}
    asked = {"after": "before", "num_captions": 12}
    study = {
        "title": "Feedback",
        "reference": "before",
        "points": [
            {"label": "more", "feedback": asked, "values": {"student.phases": [phase]}},
            {"label": "before"},
        ],
    }
    there = trainings(root)
    found = ablate(run=str(run), studies=str(studies(run.parent, study)))["data"]
    (added,) = trainings(root) - there
    start = yaml.safe_load((root / "checkpoints" / added / "run.yaml").read_text())["student"]
    assert start["start"].startswith(str(root / "checkpoints" / "student-"))
    more, before = found["points"]
    assert more["captions"] > before["captions"]
    assert more["against_reference"][-1]["before"] == "before"


def test_a_study_that_is_not_there_is_named_with_those_that_are(
    studied: tuple[Path, Path],
) -> None:
    run, given = studied
    with pytest.raises(ValueError, match=r"study 'dta' is not there; the studies are \['data'\]"):
        ablate(run=str(run), study="dta", studies=str(given))
