"""The flow `plan`, and the plan and the ledger that the whole way leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact

from flows.distillation import distill
from flows.plan import plan
from pipeline.preflight import SECTIONS
from tests.flows.conftest import FIRST_REPORT

pytestmark = pytest.mark.slow


def artifacts(key: str) -> list[Artifact]:
    """All versions, the oldest first."""
    with get_client(sync_client=True) as client:
        named = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        found = client.read_artifacts(artifact_filter=named)
    return sorted(found, key=lambda each: str(each.created))


def test_a_plan_makes_nothing_and_is_shown(
    server: dict[str, str], write_run: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = write_run(tmp_path)
    values = yaml.safe_load(run.read_text()) | {"name": "planned"}
    run.write_text(yaml.safe_dump(values))
    told: Any = plan(run=str(run))
    assert list(told["stages"]) == list(SECTIONS)
    assert told["stages"]["captions"]["rows_in"] == 48
    assert told["totals"]["money"] > 0
    assert not (tmp_path / "artifacts").exists()
    (page,) = artifacts("planned-plan")
    assert "# Plan of the run planned" in str(page.data)
    (stages,) = artifacts("planned-plan-stages")
    assert [row["stage"] for row in json.loads(str(stages.data))] == [*SECTIONS, "all"]


def test_the_first_run_spends_and_its_ledger_says_so(made: tuple[Path, Any]) -> None:
    run, handed = made
    report = json.loads((run.parent / FIRST_REPORT).read_text("utf-8"))
    ledger = report["ledger"]
    assert list(ledger["stages"]) == list(SECTIONS)
    for stage, cost in ledger["stages"].items():
        timing = handed[stage]["timing"]
        assert cost["now"] == pytest.approx(timing["seconds"]), stage
        # Written down as it went: all but what came after the manifest.
        assert 0 < cost["seconds"] <= cost["now"] + 0.01, stage
        assert cost["rows"] == report["stages"][stage]["rows_in"], stage
        assert cost["bytes"] > 0, stage
    assert ledger["totals"]["money_now"] > 0


def test_a_rerun_plans_nothing_and_spends_nothing(made: tuple[Path, Any]) -> None:
    run, _ = made
    first = json.loads((run.parent / FIRST_REPORT).read_text("utf-8"))["ledger"]
    told: Any = plan(run=str(run))
    assert told["totals"]["seconds"] == told["totals"]["bytes"] == 0
    distill(run=str(run))
    again = json.loads((run.parent / "artifacts/report/report.json").read_text("utf-8"))["ledger"]
    assert again["totals"]["now"] == again["totals"]["money_now"] == 0
    for stage, cost in again["stages"].items():
        if stage != "images":  # another test damages one of its files, which is then made twice
            assert cost["seconds"] == first["stages"][stage]["seconds"], stage
    assert "debug-ledger" in {each.key for each in artifacts("debug-ledger")}
    assert len(artifacts("debug-plan")) >= 2
