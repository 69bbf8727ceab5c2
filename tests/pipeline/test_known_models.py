"""Work of models by name against the counted figures; their terms."""

import pytest

from pipeline.config import load_run
from pipeline.known_models import (
    decode_tflop,
    encode_tflop,
    flux_tflop,
    judge_tflop,
    licence_of,
    teacher_licence,
    teacher_tflop,
    text_tflop,
)

FULL = load_run("full")


def test_a_step_of_flux_by_hand() -> None:
    """1,024 + 256 tokens through 57 blocks of 12 squares of 3,072, and their attention."""
    linear = 57 * 2 * 12 * 3072**2 * 1280
    attention = 57 * 4 * 1280**2 * 3072
    assert flux_tflop(512, 256) == pytest.approx((linear + attention) / 1e12)
    assert flux_tflop(512, 256) == pytest.approx(17.67, abs=0.01)


def test_the_models_of_the_full_run_are_counted() -> None:
    assert FULL.images
    assert FULL.verdicts
    assert FULL.features
    drawn = teacher_tflop(FULL.images.teacher, 512)
    assert drawn == pytest.approx(4 * 17.67 + 2 * 1.19 + 2.515, abs=0.05)
    assert judge_tflop(FULL.verdicts.judge) == pytest.approx(11.6)
    assert text_tflop(FULL.features) == 1.19
    assert (encode_tflop(FULL.features, 512), decode_tflop(FULL.features, 512)) == (1.118, 2.515)
    # Counted at 256 px by themselves: 0.273 and 0.622 (lightgen.md 3.3).
    assert encode_tflop(FULL.features, 256) == pytest.approx(0.273, rel=0.03)
    assert decode_tflop(FULL.features, 256) == pytest.approx(0.622, rel=0.03)


def test_a_model_that_nobody_counted_has_no_work() -> None:
    other = load_run(
        "full",
        {
            "images.teacher.repository": "Tongyi-MAI/Z-Image-Turbo",
            "verdicts.judge.model": "Qwen/Qwen3-VL-30B",
            "features.text_encoder": "google/t5gemma-2b",
            "features.autoencoder": "some/autoencoder",
        },
    )
    assert other.images
    assert other.verdicts
    assert other.features
    assert teacher_tflop(other.images.teacher, 512) is None
    assert judge_tflop(other.verdicts.judge) is None
    assert text_tflop(other.features) is encode_tflop(other.features, 512) is None
    assert licence_of("some/autoencoder").name == "not known here"


def test_a_teacher_with_restrictions_carries_a_caution() -> None:
    dev = load_run(
        "full",
        {
            "images.teacher.repository": "black-forest-labs/FLUX.1-dev",
            "images.teacher.licence": "FLUX-Non-Commercial",
        },
    )
    assert dev.images
    assert FULL.images
    assert "restricts" in teacher_licence(dev.images.teacher).caution
    assert teacher_licence(FULL.images.teacher).caution == ""
    assert "revenue" in licence_of("stabilityai/stable-diffusion-3.5-large").caution
    assert licence_of("infra/models/shapes/autoencoder").name == "MIT"
