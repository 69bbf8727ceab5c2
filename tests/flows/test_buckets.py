"""Flows on a root in a bucket, as on any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dataset import captions, images
from flows.upkeep import lineage, retention, verify
from pipeline.leases import living
from pipeline.roots import root_of
from tests.flows.conftest import debug_values


@pytest.fixture
def run(server: Any, bucket: Callable[[str], str], tmp_path: Path) -> Path:
    path = tmp_path / "debug.yaml"
    path.write_text(yaml.safe_dump({**debug_values(tmp_path), "root": bucket("runs/debug")}))
    return path


def test_flows_make_and_reuse_and_look_after_a_root_in_a_bucket(run: Path) -> None:
    made = [flow(str(run), return_state=True) for flow in (captions, images)]
    again = [flow(str(run), return_state=True) for flow in (captions, images)]

    assert [state.name for state in made] == ["Completed", "Completed"]
    assert [state.name for state in again] == ["Cached", "Cached"]
    tables = [[state.result()["tables"] for state in states] for states in (made, again)]
    assert tables[0] == tables[1]
    assert verify(str(run), return_state=True).is_completed()
    assert "images" in str(lineage(str(run)))
    assert retention(str(run))["items"] == ()


def test_a_stage_in_a_bucket_holds_what_it_writes(run: Path, monkeypatch: Any) -> None:
    from pipeline import captions as stage

    held: list[Any] = []
    root = root_of(yaml.safe_load(run.read_text())["root"])
    plan = stage.plan
    monkeypatch.setattr(stage, "plan", lambda *given: held.extend(living(root)) or plan(*given))

    captions(str(run))

    assert [lease.stage for lease in held] == ["captions"]
    assert living(root) == []
