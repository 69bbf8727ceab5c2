"""A Prefect server for the session and a run small enough for a test."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_LOCAL_STORAGE_PATH,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness

from flows.distillation import distill

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "infra" / "models" / "shapes"
FIRST_REPORT = "first-report.json"
AS_MADE = "artifacts-as-made"
SAMPLING = {"num_iterations": 4, "head_steps": 4, "guidance": 2.0}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which a process reaches the session's server."""
    storage = str(tmp_path_factory.mktemp("prefect"))
    # Without heartbeats a flow run ends at once, not at the next full second.
    settings: dict[Any, Any] = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOCAL_STORAGE_PATH: storage,
    }
    with prefect_test_harness(server_startup_timeout=120), temporary_settings(settings):
        yield {
            **os.environ,
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_LOCAL_STORAGE_PATH": storage,
            "HF_HUB_OFFLINE": "1",
        }


WriteRun = Callable[[Path], Path]


@pytest.fixture(scope="session")
def write_run() -> WriteRun:
    """Writes the debug run into a folder, where its artifacts will be, too."""

    def write(folder: Path) -> Path:
        path = folder / "debug.yaml"
        path.write_text(yaml.safe_dump(debug_values(folder / "artifacts")))
        return path

    return write


@pytest.fixture(scope="session")
def made(
    server: dict[str, str], write_run: WriteRun, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The run's file and what its uninterrupted first run handed on."""
    folder = tmp_path_factory.mktemp("whole")
    run = write_run(folder)
    handed = distill(run=str(run))
    # A rerun writes the report again, with its own counts of what was made.
    shutil.copy(folder / "artifacts" / "report" / "report.json", folder / FIRST_REPORT)
    # Some tests go on in its root: who compares records wants it as it was made.
    shutil.copytree(folder / "artifacts", folder / AS_MADE)
    return run, handed


def debug_values(root: Path) -> dict[str, Any]:
    """Every stage, each with next to nothing to do."""
    model = {
        "base_image_size": 64, "width": 32, "num_heads": 4, "encoder_depth": 1,
        "decoder_depth": 1, "cross_depth": 1, "aligner_depth": 0, "text_width": 128,
        "text_length": 16, "attend_padding": False, "dropout": 0.0,
        "head": {"kind": "flow", "depth": 1, "width": 32, "batch_multiplier": 1},
    }  # fmt: skip
    return {
        "name": "debug",
        "root": str(root),
        "captions": {
            "sources": [{"kind": "shapes", "num_captions": 48}],
            "rows_per_shard": 16,
        },
        "images": {
            "teacher": {"kind": "shapes", "error_rate": 0.3},
            "image_sizes": [64, 128],
            "max_captions": {128: 16},
        },
        "verdicts": {"judge": {"kind": "shapes"}},
        "features": {
            "autoencoder": str(MODELS / "autoencoder"),
            "text_encoder": str(MODELS / "text_encoder"),
            "image_sizes": [64, 128],
            "text_length": 16,
        },
        "student": {
            "model": model,
            "phases": [
                {"image_size": 64, "steps": 12, "batch_size": 8, "optimizer": optimizer(1e-3)},
                {"image_size": 128, "steps": 4, "batch_size": 4, "optimizer": optimizer(1e-4)},
            ],
            "checkpoint_every": 4,
            "log_every": 2,
            "sample_every": 12,
        },
        "preferences": {
            "image_size": 64,
            "num_captions": 12,
            "samples_per_caption": 2,
            "min_margin": 0.0,
            "sampling": SAMPLING,
            "rows_per_shard": 6,
        },
        "dpo": {"beta": 100, "steps": 4, "batch_size": 4, "optimizer": optimizer(1e-4)},
        "evaluation": {
            "evaluators": [{"kind": "shapes", "prompts_per_task": 1, "images_per_prompt": 1}],
            "image_size": 64,
            "sampling": SAMPLING,
        },
    }


def optimizer(rate: float) -> dict[str, float]:
    return {"learning_rate": rate, "ema_decay": 0.9}
