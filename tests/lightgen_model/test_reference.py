"""Side by side with the released code, where a copy of it is at hand.

    LIGHTGEN_REFERENCE=folder LIGHTGEN_REFERENCE_PYTHON=python pytest <this file>

The folder is a checkout of the released repository; the interpreter has torch, timm 0.9.12,
diffusers and scipy. Without the folder these tests are skipped, and `test_published.py` holds the
values that were taken from it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightgen_model.config import SamplingConfig
from lightgen_model.model import LightGen, take
from lightgen_model.published import load_published, published_name
from lightgen_model.sampling import draw_tokens
from tests.lightgen_model.golden import SMALL, TEXT_LENGTH, filled, inputs, small_model, stages

FOLDER = os.environ.get("LIGHTGEN_REFERENCE")
PYTHON = os.environ.get("LIGHTGEN_REFERENCE_PYTHON", sys.executable)
RUNNER = Path(__file__).parent / "reference_runner.py"
pytestmark = pytest.mark.skipif(FOLDER is None, reason="LIGHTGEN_REFERENCE names no folder")

HEAD_STEPS = 10
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


def sample_case(name: str, grid: tuple[int, int], num_iterations: int, **changes: object) -> Any:
    num_tokens, generator = grid[0] * grid[1], torch.Generator().manual_seed(0)
    shape = (HEAD_STEPS + 1, 2, num_tokens, SMALL.token_dim)
    return {
        "name": name,
        "kind": "sample",
        "grid": grid,
        "num_iterations": num_iterations,
        "guidance": 4.0,
        "guidance_schedule": "constant",
        "temperature": 1.0,
        "text": inputs(*grid)["text"],
        "orders": torch.stack([torch.randperm(num_tokens, generator=generator) for _ in "ab"]),
        "tape": torch.randn(shape, generator=generator),
    } | changes


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


def outspoken() -> dict[str, Tensor]:
    """The golden fill with a head that listens: a picture then tells 1% more guidance apart."""
    state = filled()
    state["diffloss.net.cond_embed.weight"] *= 10
    state["diffloss.net.final_layer.linear.weight"] *= 4
    return state


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


@torch.inference_mode()
def ours_sampled(model: LightGen, case: dict[str, Any]) -> Tensor:
    """Our sampler's loop under the case's orders and noise tape."""
    num_tokens, names = case["orders"].shape[1], ("num_iterations", "guidance", "temperature")
    sampling = SamplingConfig(
        head_steps=HEAD_STEPS,
        guidance_schedule=case["guidance_schedule"],
        **{name: case[name] for name in names},
    )

    def noise(index: Tensor) -> Iterator[Tensor]:
        return (take(level, index).flatten(0, 1) for level in case["tape"])

    *_, (_, _, tokens) = draw_tokens(
        model,
        model.align(case["text"], torch.full((2,), TEXT_LENGTH)),
        torch.zeros(2, num_tokens, SMALL.token_dim),
        case["orders"],
        [num_tokens, num_tokens],
        sampling,
        noise,
        grid=case["grid"],
    )
    return model.unpatchify(tokens, case["grid"])


@pytest.mark.parametrize("name", SAMPLES)
def test_whole_pictures_agree_under_a_noise_tape(
    answers: dict[str, dict[str, Tensor]], name: str
) -> None:
    wanted = answers[name]["latents"]
    model = load_published(outspoken(), num_heads=4, text_length=TEXT_LENGTH)
    given = ours_sampled(model, SAMPLES[name])
    # Unclipped steps of an untrained head reach 1e5: the error is measured against that.
    assert (given - wanted).abs().max() <= 1e-5 * wanted.abs().max()
