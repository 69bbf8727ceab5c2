"""Side by side with the released code, where a copy of it is at hand.

    LIGHTGEN_REFERENCE=folder LIGHTGEN_REFERENCE_PYTHON=python pytest <this file>

The folder is a checkout of the released repository; the interpreter has torch, timm 0.9.12,
diffusers and scipy. Without the folder these tests are skipped, and `test_published.py` holds the
values that were taken from it.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightgen_model.published import published_name
from tests.lightgen_model.golden import (
    HEAD_STEPS,
    SMALL,
    TEXT_LENGTH,
    drawn,
    filled,
    inputs,
    outspoken,
    outspoken_model,
    sample_case,
    small_model,
    stages,
)

FOLDER = os.environ.get("LIGHTGEN_REFERENCE")
PYTHON = os.environ.get("LIGHTGEN_REFERENCE_PYTHON", sys.executable)
RUNNER = Path(__file__).parent / "reference_runner.py"
pytestmark = pytest.mark.skipif(FOLDER is None, reason="LIGHTGEN_REFERENCE names no folder")

SIZES = {
    "width": SMALL.width,
    "num_heads": SMALL.num_heads,
    "depth": SMALL.encoder_depth,
    "channels": SMALL.latent_channels,
    "aligner_depth": SMALL.aligner_depth,
    "text_width": SMALL.text_width,
    "text_length": TEXT_LENGTH,
    "head_depth": SMALL.head.depth,
    "head_width": SMALL.head.width,
    "head_steps": HEAD_STEPS,
    "batch_multiplier": 2,
}


def stage_case(name: str, grid: tuple[int, int], **changes: object) -> dict[str, Any]:
    case = {"name": name, "kind": "stages", "grid": grid, "axes_put_right": True}
    return case | inputs(*grid) | changes


STAGES = {
    case["name"]: case
    for case in (
        stage_case("4 x 4", (4, 4)),
        stage_case("16 x 16", (16, 16)),
        stage_case("32 x 32", (32, 32)),
        stage_case("8 x 16", (8, 16)),
        stage_case("16 x 4", (16, 4)),
        stage_case("nothing visible", (4, 4), mask=torch.ones(2, 16, dtype=torch.bool)),
        stage_case("one masked", (4, 4), mask=torch.eye(16)[[3, 9]].bool()),
    )
}
SAMPLES = {
    case["name"]: case
    for case in (
        sample_case("sixteen steps", (16, 16), 16),
        sample_case("one token a step", (4, 4), 16),
        sample_case("one step", (4, 4), 1),
        sample_case(
            "linear guidance, cooler", (4, 8), 8, guidance_schedule="linear", temperature=0.9
        ),
        sample_case("no guidance", (4, 4), 6, guidance=1.0),
    )
}
SWAPPED = stage_case("released axes", (8, 16), axes_put_right=False)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What the released code says to every case."""
    folder = tmp_path_factory.mktemp("reference")
    cases = [*STAGES.values(), *SAMPLES.values(), SWAPPED]
    states = {"stages": filled(), "sample": outspoken()}
    given, found = folder / "cases.pt", folder / "answers.pt"
    torch.save({"states": states, "sizes": SIZES, "cases": cases}, given)
    done = subprocess.run([PYTHON, RUNNER, given, found], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(found, weights_only=True)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_agrees(answers: dict[str, dict[str, Tensor]], name: str) -> None:
    case = STAGES[name]
    for stage, values in stages(small_model(), case, case["grid"]).items():
        wanted = answers[name][stage]
        assert values.shape == wanted.shape, stage
        assert torch.allclose(values, wanted, rtol=1e-5, atol=1e-5), stage


@pytest.mark.parametrize("name", STAGES)
def test_gradients_agree(answers: dict[str, dict[str, Tensor]], name: str) -> None:
    case, model = STAGES[name], small_model().requires_grad_(True)
    one = model.config.head.model_copy(update={"batch_multiplier": 1})
    model.config = model.config.model_copy(update={"head": one})
    flat = case["mask"].flatten()
    losses = model(
        case["latents"],
        case["text"],
        torch.full((2,), TEXT_LENGTH),
        case["mask"],
        times=case["times"][flat],
        noise=case["noise"][flat],
    )
    (losses.mse + losses.vb).mean().backward()
    for name_of, parameter in model.named_parameters():
        wanted = answers[name].get(f"gradient {published_name(name_of)}")
        given = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        wanted = torch.zeros_like(parameter) if wanted is None else wanted
        assert (given - wanted).norm() <= 1e-4 * wanted.norm() + 1e-6, name_of


def test_the_released_tables_are_swapped_on_wide_pictures_and_ours_are_not(
    answers: dict[str, dict[str, Tensor]],
) -> None:
    released, right = answers["released axes"]["z"], answers["8 x 16"]["z"]
    assert not torch.allclose(released, right, atol=1e-3)


@pytest.mark.parametrize("name", SAMPLES)
def test_whole_pictures_agree_under_a_noise_tape(
    answers: dict[str, dict[str, Tensor]], name: str
) -> None:
    wanted = answers[name]["latents"]
    given = drawn(outspoken_model(), SAMPLES[name])
    # Unclipped steps of an untrained head reach 1e5: the error is measured against that.
    assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()
