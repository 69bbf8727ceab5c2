"""The whole way on the debug run: made once, reused whole, restartable after any kill."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import FlowRunSort

from flows.dataset import images
from flows.distillation import distill
from flows.training import dpo
from pipeline.preflight import SECTIONS
from tests.flows.conftest import FIRST_REPORT

ROOT = Path(__file__).parent.parent.parent
WriteRun = Callable[[Path], Path]
pytestmark = pytest.mark.slow
MAX_ARTIFACT_BYTES = 300_000


def test_every_stage_is_made_and_counted(made: tuple[Path, Any]) -> None:
    run, handed = made
    assert list(handed) == list(SECTIONS)
    report = json.loads((run.parent / FIRST_REPORT).read_text("utf-8"))
    for stage, counts in report["stages"].items():
        assert counts["rows_in"] == counts["kept"] + counts["rejected"], stage
        assert counts["made"] > 0, stage
        assert counts["reused"] == 0, stage
    assert len(report["scores"]) >= 2
    assert (run.parent / "artifacts/report/report.html").is_file()


def test_a_rerun_makes_nothing_and_shows_cached(made: tuple[Path, Any]) -> None:
    run, _ = made
    before = files(run.parent / "artifacts")
    again: Any = distill(run=str(run))
    assert [name for name, each in again.items() if each["timing"]["made"]] == []
    assert files(run.parent / "artifacts") == before
    assert sorted(stage_states(len(SECTIONS))) == ["Cached"] * len(SECTIONS)


def test_force_makes_a_damaged_file_again(made: tuple[Path, Any]) -> None:
    run, _ = made
    before = files(run.parent / "artifacts")
    victim = min(run.parent.glob("artifacts/tables/images-*/data/*.lance"))
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    victim.write_bytes(damaged)
    images(run=str(run), force=True)
    assert files(run.parent / "artifacts") == before


def test_another_beta_runs_dpo_and_its_evaluation_alone(made: tuple[Path, Any]) -> None:
    run, _ = made
    before = files(run.parent / "artifacts")
    dpo(run=str(run), beta=7.0)
    after = files(run.parent / "artifacts")
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[1].split("-")[0] for name in after.keys() - before.keys()}
    assert new == {"dpo", "scores"}


def test_a_run_that_ends_with_its_alignment_is_aligned_alone(made: tuple[Path, Any]) -> None:
    run, _ = made
    state = dpo(run=str(run), overrides={"evaluation": None}, return_state=True)
    assert state.is_completed()


def test_every_stage_leaves_its_artifacts(made: tuple[Path, Any]) -> None:
    with get_client(sync_client=True) as client:
        ours = ArtifactFilter(key=ArtifactFilterKey(like_="debug-%"))
        artifacts = client.read_artifacts(artifact_filter=ours, limit=200)
    keys = {artifact.key for artifact in artifacts}
    assert {f"debug-{stage}" for stage in SECTIONS} <= keys
    assert {f"debug-{stage}-counts" for stage in SECTIONS} <= keys
    assert "debug-report" in keys
    sizes = [len(json.dumps(artifact.data)) for artifact in artifacts]
    assert max(sizes) <= MAX_ARTIFACT_BYTES


def test_five_kills_leave_the_bytes_of_an_uninterrupted_run(
    made: tuple[Path, Any], server: dict[str, str], write_run: WriteRun, tmp_path: Path
) -> None:
    run, root = write_run(tmp_path), tmp_path / "artifacts"
    signs = {
        "captions": "tables/captions-*/data/*.lance",
        "images": "tables/images-*/data/*.lance",
        "features": "tables/*64-*/data/*.lance",
        "student": "checkpoints/student-*/*/log.jsonl",
        "preferences": "tables/preferences-*/data/*.lance",
    }
    for pattern in signs.values():
        kill_when(lambda pattern=pattern: any(root.glob(pattern)), run, server)
    done: Any = distill(run=str(run))
    assert list(done) == list(SECTIONS)
    whole = files(made[0].parent / "artifacts")
    assert {name: whole.get(name) for name in files(root)} == files(root)


def kill_when(sign: Callable[[], bool], run: Path, environment: dict[str, str]) -> None:
    """Start the flow in a process of its own and kill -9 it at the sign."""
    code = f"from flows.distillation import distill; distill(run={str(run)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 180
    while not sign() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert sign(), said
    assert process.returncode == -signal.SIGKILL, f"too late: it ended before the kill\n{said}"


def files(root: Path) -> dict[str, str]:
    """The sum of every data file and every finished weight, by place."""
    paths = [*root.glob("tables/*/data/*.lance"), *root.glob("checkpoints/*/final/*.safetensors")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
    }


def stage_states(number: int) -> list[str]:
    """How the newest stage flow runs ended."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=100, sort=FlowRunSort.START_TIME_DESC)
    runs = [run for run in runs if run.parent_task_run_id and run.start_time]
    runs.sort(key=lambda run: run.start_time, reverse=True)
    return [str(run.state_name) for run in runs[:number]]
