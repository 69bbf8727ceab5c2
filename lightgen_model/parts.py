"""The frozen parts beside a student, as its checkpoint names them.

In:    `about` of a checkpoint: folders or hub repositories with revisions.
Out:   the components of the pipeline: vae, text_encoder, tokenizer.
"""

from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer

from lightgen_model.autoencoder import Autoencoder
from lightgen_model.text_encoder import load_model


def frozen_parts(about: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is not `given` already; ValueError where `about` does not say where it is."""
    parts = dict(given)
    for name, part in (("autoencoder", "vae"), ("text_encoder", "text_encoder")):
        if part not in parts and name not in about:
            raise ValueError(
                f"the checkpoint's config.json names no {name} under `about`; give {part}=..."
            )
    if "vae" not in parts:
        revision, subfolder = about.get("autoencoder_revision"), about.get("autoencoder_subfolder")
        parts["vae"] = Autoencoder.load(about["autoencoder"], revision or None, subfolder or "").vae
    if "text_encoder" not in parts:
        place, revision = about["text_encoder"], about.get("text_encoder_revision") or None
        parts["text_encoder"] = load_model(place, revision)
        parts["tokenizer"] = AutoTokenizer.from_pretrained(place, revision=revision)
    return parts
