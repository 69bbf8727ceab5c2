"""What does not fit is told from files alone, before anything is drawn."""

import json
from pathlib import Path

import pytest

from lightgen_model import autoencoder, text_encoder
from pipeline import preflight
from pipeline.config import load_run
from pipeline.encoder_configs import AUTOENCODERS, TEXT_ENCODERS, misfits

KL = {"_class_name": "AutoencoderKL", "scaling_factor": 1.5, "latent_channels": 16}
KL["block_out_channels"] = [1, 1, 1, 1]
DC = {"_class_name": "AutoencoderDC", "scaling_factor": 0.4, "latent_channels": 16}
DC["encoder_block_out_channels"] = [1, 1, 1, 1]
T5, GEMMA = {"model_type": "t5", "d_model": 128}, {"model_type": "t5gemma"}


def told(tmp_path: Path, vae: dict, text: dict, latents: str = "moments") -> str:
    values = {"features.latents": latents}
    for name, config in (("autoencoder", vae), ("text_encoder", text)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        values[f"features.{name}"] = str(tmp_path / name)
    config = load_run("tiny", values)
    assert config.features
    assert config.student
    return "; ".join(misfits(config.features, config.student.model))


def test_the_same_names_are_known_as_are_loaded() -> None:
    assert set(AUTOENCODERS) == set(autoencoder.CLASSES)
    assert set(TEXT_ENCODERS) == set(text_encoder.CLASSES)


@pytest.mark.parametrize(
    ("vae", "text", "latents", "words"),
    [
        (KL, T5, "moments", ""),
        (DC, GEMMA | {"encoder": {"hidden_size": 128}}, "means", ""),
        (KL | {"_class_name": "AutoencoderTiny"}, T5, "means", "holds AutoencoderTiny; allowed"),
        (KL | {"scaling_factor": None}, T5, "means", "does not say its scaling_factor"),
        (DC, T5, "moments", "moments, but AutoencoderDC has no posterior; allowed: means"),
        (KL | {"latent_channels": 4}, T5, "means", "latent_channels: 16, but that of"),
        (KL | {"block_out_channels": [1] * 3}, T5, "means", "latent_stride: 8, but that of"),
        (KL, {"model_type": "bert"}, "means", "holds bert; allowed: t5, umt5, t5gemma"),
        (KL, T5 | {"d_model": 4096}, "means", "text_width: 128, but that of"),
        (KL, GEMMA | {"encoder": {"hidden_size": 2304}}, "means", "is 2304"),
        ({}, T5, "means", "holds no config.json; allowed: AutoencoderKL, AutoencoderDC; a whole"),
    ],
)
def test_each_misfit_is_a_sentence(tmp_path, vae, text, latents, words) -> None:
    found = told(tmp_path, vae, text, latents)
    assert words in found
    assert bool(words) == bool(found)


def test_a_folder_without_a_config_is_told_before_the_run(tmp_path: Path) -> None:
    run = load_run("tiny", {"features.autoencoder": str(tmp_path)})
    with pytest.raises(ValueError, match=r"cannot start .*\n .* holds no config.json"):
        preflight.check(run, ["images", "features"])


def test_weights_in_the_hub_cache_are_read_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    revision = "a" * 40
    place = tmp_path / "models--some--vae" / "snapshots" / revision / "vae"
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(KL | {"latent_channels": 4}))
    values = {"autoencoder": "some/vae", "autoencoder_subfolder": "vae"}
    values["autoencoder_revision"] = revision
    run = load_run("tiny", {f"features.{name}": value for name, value in values.items()})
    (sentence,) = misfits(run.features, run.student.model)
    assert "but that of features.autoencoder: some/vae is 4" in sentence
    other = load_run("full")
    assert misfits(other.features, other.student.model) == []  # not here is no misfit
