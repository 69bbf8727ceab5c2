"""On-policy rounds as flows: the second one adds its own things and changes none of the first."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.distillation import distill
from flows.training import dpo
from pipeline.preflight import SECTIONS
from tests.flows.test_distillation import files, stage_states

pytestmark = pytest.mark.slow
TWO = {"dpo.rounds": 2}


def test_a_second_round_is_made_once_and_shown(made: tuple[Path, Any]) -> None:
    run, _ = made
    before = files(run.parent / "artifacts")
    dpo(run=str(run), overrides=TWO)
    after = files(run.parent / "artifacts")
    assert {name: after[name] for name in before} == before
    new = {name.split("/")[1].split("-")[0] for name in after.keys() - before.keys()}
    assert new == {"samples", "preferences", "dpo", "scores"}
    handed: Any = distill(run=str(run), overrides=TWO)
    assert list(handed) == [*list(SECTIONS)[:-1], "preferences-2", "dpo-2", "evaluate"]
    assert files(run.parent / "artifacts") == after
    assert stage_states(len(handed)) == ["Cached"] * len(handed)
    report = json.loads((run.parent / "artifacts/report/report.json").read_text("utf-8"))
    assert list(report["scores"]) == ["untrained", "student", "aligned", "aligned-2"]
    assert (
        report["stages"]["dpo-2"]["facts"]["started from"]
        == handed["dpo"]["checkpoints"]["aligned"]
    )
