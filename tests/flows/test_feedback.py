"""The feedback flow: new captions for weak tasks, and a student that goes on from the last one."""

from pathlib import Path
from typing import Any

import pytest

from flows.feedback import feedback
from tests.flows.conftest import optimizer
from tests.flows.test_distillation import files

pytestmark = pytest.mark.slow
PHASE = {"image_size": 64, "steps": 2, "batch_size": 8, "optimizer": optimizer(1e-4)}


def test_a_feedback_round_adds_to_what_is_there(made: tuple[Path, Any]) -> None:
    run, _ = made
    before = files(run.parent / "artifacts")
    handed = feedback(run=str(run), num_captions=12, changes={"student.phases": [PHASE]})
    after = files(run.parent / "artifacts")
    assert {name: after[name] for name in before} == before
    assert handed["images"]["timing"]["reused"] >= 48
    assert 0 < handed["images"]["timing"]["made"] <= 24
