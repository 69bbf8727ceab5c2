"""The flows beside the way of the data, on a run that the flows made themselves."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows import stages
from flows.dataset import images
from flows.distillation import distill
from flows.training import dpo
from flows.upkeep import compare, lineage, retention, verify
from pipeline.config import RUNS
from pipeline.leases import living
from pipeline.ledger import enter
from tests.flows.conftest import AS_MADE
from tests.flows.test_distillation import files

ROOT = Path(__file__).parent.parent.parent
WriteRun = Callable[[Path], Path]


@pytest.fixture
def run(made: tuple[Path, Any], write_run: WriteRun, tmp_path: Path) -> Path:
    """The made run in a folder of the test."""
    shutil.copytree(made[0].parent / AS_MADE, tmp_path / "artifacts")
    return write_run(tmp_path)


def artifact(key: str) -> str:
    with get_client(sync_client=True) as client:
        named = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        found = client.read_artifacts(artifact_filter=named)
    newest = max(found, key=lambda each: each.created)  # type: ignore[arg-type, return-value]
    return str(newest.data)


def test_every_run_has_a_deployment_of_each() -> None:
    deployments = yaml.safe_load((ROOT / "infra/prefect.yaml").read_text("utf-8"))["deployments"]
    there = {(each["entrypoint"], each["name"]) for each in deployments}
    flows = ("verify", "retention", "lineage", "compare")
    wanted = {(f"flows/upkeep.py:{f}", path.stem) for f in flows for path in RUNS.glob("*.yaml")}
    assert wanted - there == set()


@pytest.mark.slow
def test_damaged_files_fail_verify_and_the_run_makes_them_again(run: Path) -> None:
    root = run.parent / "artifacts"
    handed: Any = distill(run=str(run))
    whole = files(root)
    assert verify(run=str(run), return_state=True).is_completed()
    victims = [
        min(root.glob("tables/images-*/data/*.lance")),
        root / handed["dpo"]["checkpoints"]["aligned"] / "model.safetensors",
    ]
    for victim in victims:
        data = bytearray(victim.read_bytes())
        data[len(data) // 3] ^= 1
        victim.write_bytes(data)
    state = verify(run=str(run), return_state=True)
    assert state.is_failed()
    assert "2 damaged" in str(state.message)
    assert all(victim.name in artifact("debug-verify") for victim in victims)
    handed = distill(run=str(run))
    assert [name for name, each in handed.items() if each["timing"]["made"]] == ["images", "dpo"]
    assert files(root) == whole
    assert verify(run=str(run), return_state=True).is_completed()


@pytest.mark.slow
def test_a_made_run_shows_its_lineage_as_a_graph(run: Path) -> None:
    assert "![lineage](data:image/svg+xml;base64," in artifact("debug-lineage")
    told = lineage(run=str(run), target="student")
    assert list(told["entries"]) == ["captions", "images", "verdicts", "features", "student"]
    assert "# Where student comes from" in artifact("debug-lineage")


@pytest.mark.slow
def test_another_beta_is_the_value_that_two_runs_differ_by(run: Path) -> None:
    dpo(run=str(run), beta=7.0)
    told = compare(run=str(run))
    assert "first differ at dpo" in told["cause"]
    assert "dpo.beta 100.0 against 7.0" in told["cause"]
    verdicts = {stage["stage"]: stage["verdict"] for stage in told["stages"]}
    assert verdicts["student"] == "the same"
    assert verdicts["evaluate"] == "other inputs"
    assert "Share of correct pictures" in artifact("debug-compare")


@pytest.mark.slow
def test_a_running_stage_holds_what_it_reads_and_writes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, seen = run.parent / "artifacts", []

    def entered(*words: Any) -> dict[str, str]:
        seen.extend(living(root))
        return enter(*words)

    monkeypatch.setattr(stages, "enter", entered)
    images(run=str(run), force=True)
    (lease,) = seen
    assert (lease.stage, lease.pid) == ("images", os.getpid())
    tables = [path.relative_to(root).as_posix() for path in (root / "tables").iterdir()]
    held = {table.split("/")[1].split("-")[0] for table in tables if lease.holds(table)}
    assert held == {"captions", "images"}
    assert living(root) == []


@pytest.mark.slow
def test_retention_lists_and_removes_nothing_by_itself(run: Path) -> None:
    before = files(run.parent / "artifacts")
    plan = retention(run=str(run), min_age_hours=0)
    assert {item["kind"] for item in plan["items"]} >= {"state", "launches"}
    assert plan["removed"] is False
    assert files(run.parent / "artifacts") == before
