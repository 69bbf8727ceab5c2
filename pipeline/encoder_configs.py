"""What an encoder's files say of themselves, read before any work and without a model library.

In:    `FeaturesConfig` and the student's sizes; `config.json` in a folder or in the hub's cache.
Out:   a sentence for each thing that does not fit: another class, a latent of unknown scale, other
       channels, stride or width than the student's. What is not here yet is no misfit.
Rerun: reads again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightgen_model.config import ModelConfig
from pipeline.config import FeaturesConfig

# Of each class the values that name its blocks, one a halving but the first. The same names as
# `lightgen_model.autoencoder` and `.text_encoder` load, which a test compares.
AUTOENCODERS = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
}
TEXT_ENCODERS = ("t5", "umt5", "t5gemma")


def misfits(values: FeaturesConfig, model: ModelConfig | None) -> list[str]:
    """Sentences on the autoencoder and the text encoder; `model` is the student, where one is."""
    vae = config_of(values.autoencoder, values.autoencoder_revision, values.autoencoder_subfolder)
    text = config_of(values.text_encoder, values.text_encoder_revision)
    found = list(_autoencoder_misfits(vae, values, model)) if vae is not None else []
    return found + (list(_text_misfits(text, values, model)) if text is not None else [])


def config_of(place: str, revision: str | None, subfolder: str = "") -> dict[str, Any] | None:
    """`config.json` of a folder or of a snapshot in the hub's cache; None where there is none."""
    folder = Path(place) if Path(place).is_dir() else snapshot_of(place, revision)
    path = folder / subfolder / "config.json" if folder else None
    if path is None or not path.is_file():
        return {} if Path(place).is_dir() else None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def snapshot_of(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository's files in the hub's cache; any revision where none is named."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    if revision:
        return folder / revision if (folder / revision).is_dir() else None
    return next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None


def _autoencoder_misfits(
    found: Mapping[str, Any], values: FeaturesConfig, model: ModelConfig | None
) -> Iterator[str]:
    place, name = f"features.autoencoder: {values.autoencoder}", found.get("_class_name")
    if name not in AUTOENCODERS:
        hint = "" if values.autoencoder_subfolder else "; a whole pipeline needs a subfolder"
        yield f"{place} holds {name or 'no config.json'}; allowed: {', '.join(AUTOENCODERS)}{hint}"
        return
    if found.get("scaling_factor") is None:
        yield f"{place} does not say its scaling_factor; write it into its config.json"
    if name == "AutoencoderDC" and values.latents == "moments":
        yield f"features.latents: moments, but {name} has no posterior; allowed: means"
    blocks = found.get(AUTOENCODERS[name])
    if model and blocks:
        stride = 2 ** (len(blocks) - 1)
        if stride != model.latent_stride:
            yield _differs("latent_stride", model.latent_stride, place, stride)
    channels = found.get("latent_channels")
    if model and channels and channels != model.latent_channels:
        yield _differs("latent_channels", model.latent_channels, place, channels)


def _text_misfits(
    found: Mapping[str, Any], values: FeaturesConfig, model: ModelConfig | None
) -> Iterator[str]:
    place, kind = f"features.text_encoder: {values.text_encoder}", found.get("model_type")
    if kind not in TEXT_ENCODERS:
        yield f"{place} holds {kind or 'no config.json'}; allowed: {', '.join(TEXT_ENCODERS)}"
        return
    sizes = found.get("encoder", {}) if kind == "t5gemma" else found
    width = sizes.get("hidden_size") or sizes.get("d_model")
    if model and width and width != model.text_width:
        yield _differs("text_width", model.text_width, place, width)


def _differs(name: str, given: int, place: str, found: int) -> str:
    return f"student.model.{name}: {given}, but that of {place} is {found}"
