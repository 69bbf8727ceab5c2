"""The frozen encoders of a run: which weights they are, and one of each a process.

In:    `FeaturesConfig`.
Out:   an autoencoder, a text encoder, a vision encoder; their identity, told without loading them.
Rerun: a folder of weights is known by its content, a repository by its revision.
"""

import hashlib
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import plugins
from pipeline.config import FeaturesConfig
from pipeline.halving import BatchSize
from pipeline.seals import sha256_of

if TYPE_CHECKING:
    # Loaded inside functions: torch takes seconds, and a flow that finds everything needs none.
    from lightgen_model.autoencoder import Autoencoder
    from lightgen_model.text_encoder import TextEncoder
    from lightgen_model.vision_encoder import VisionEncoder


def autoencoder_identity(values: FeaturesConfig) -> str:
    identity = weights_identity(values.autoencoder, values.autoencoder_revision)
    return "/".join(filter(None, (identity, values.autoencoder_subfolder)))


def text_encoder_identity(values: FeaturesConfig) -> str:
    return weights_identity(values.text_encoder, values.text_encoder_revision)


def weights_identity(place: str, revision: str | None) -> str:
    """What a folder holds, or a repository at its revision."""
    folder = Path(place)
    if not folder.is_dir():
        return f"{place}@{revision}"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return _folder_sum(place, tuple(facts))


@lru_cache(maxsize=16)
def _folder_sum(place: str, facts: tuple[tuple[str, int, int], ...]) -> str:
    """Summed again only when a file has changed; the name of the folder is not part of it."""
    total = hashlib.sha256()
    for name, _, _ in facts:
        total.update(f"{Path(name).relative_to(place)}:{sha256_of(Path(name))}\n".encode())
    return total.hexdigest()


@cache
def autoencoder(values: FeaturesConfig, device: str) -> "Autoencoder":
    """One a process."""
    if plugins.is_plugin(values.autoencoder):
        return plugins.load(values.autoencoder, {"device": device})
    import torch

    from lightgen_model.autoencoder import Autoencoder

    dtype = getattr(torch, values.dtype)
    return Autoencoder.load(
        values.autoencoder,
        values.autoencoder_revision,
        values.autoencoder_subfolder,
        device,
        dtype,
    )


@cache
def text_encoder(values: FeaturesConfig, device: str) -> "TextEncoder":
    """One a process."""
    if plugins.is_plugin(values.text_encoder):
        given = {"device": device, "length": values.text_length}
        return plugins.load(values.text_encoder, given)
    import torch

    from lightgen_model.text_encoder import TextEncoder

    return TextEncoder.load(
        values.text_encoder,
        values.text_length,
        values.text_encoder_revision,
        device,
        getattr(torch, values.dtype),
    )


@cache
def vision_encoder(values: FeaturesConfig, device: str) -> "VisionEncoder":
    """One a process."""
    import torch

    from lightgen_model.vision_encoder import VisionEncoder

    assert values.alignment_encoder is not None
    dtype = getattr(torch, values.dtype)
    place, revision = values.alignment_encoder, values.alignment_encoder_revision
    return VisionEncoder.load(place, revision, device, dtype)


@cache
def batch_size(values: FeaturesConfig, table: str) -> BatchSize:
    """One a process and table: what memory did not hold once is not tried again."""
    kind, _, size = table.partition("_")
    encoder = {"text": "text_encoder", "features": "autoencoder"}.get(kind, "alignment_encoder")
    refusal = f"features.{encoder}: {getattr(values, encoder)}" + (f" at {size} px" if size else "")
    advice = "choose dtype bfloat16, shorter texts or smaller pictures"
    return BatchSize(values.batch_size, f"features.batch_size for {table}", refusal, advice)
