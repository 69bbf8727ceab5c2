"""The student draws: captions and seeds in, pictures out.

In:    a checkpoint folder, captions with a seed each, sampling values.
Out:   pictures, in the order of the captions; each is what the VAE makes of its normalised latents
       rounded to float16.
Rerun: the same values give the same pictures. Batches are cut in order, so that rows of one call
       always share their batch with the same others.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightgen_model.config import ModelConfig
from pipeline.config import RunConfig, SamplingConfig
from pipeline.encoders import autoencoder, text_encoder
from pipeline.roots import fetched, root_of
from pipeline.tables import Manifest

if TYPE_CHECKING:
    # Loaded inside functions: torch takes seconds, and a flow that finds everything needs none.
    from lightgen_model.model import LightGen


def checkpoint_folder(config: RunConfig, manifest: Manifest, name: str) -> Path:
    return fetched(root_of(config.root) / manifest.checkpoints[name])


def draw(
    config: RunConfig,
    folder: Path,
    captions: Sequence[str],
    seeds: Sequence[int],
    *,
    image_size: int,
    sampling: SamplingConfig,
) -> Iterator[list[Image.Image]]:
    """One list a batch. A checkpoint of another config is a ValueError that names both."""
    from lightgen_model.sampling import sample

    assert config.student is not None and config.features is not None
    model = _student(folder, config.device, config.student.model.drawn, sampling.precision)
    encoder = text_encoder(config.features, config.device)
    for first in range(0, len(captions), sampling.batch_size):
        rows = slice(first, first + sampling.batch_size)
        states, lengths = encoder.encode(captions[rows])  # (B, L, E), (B,)
        latents = sample(
            model, states, lengths, sampling, image_size=image_size, seeds=seeds[rows]
        )  # (B, c, h, w)
        yield decode(config, latents.half().cpu().numpy())


def decode(config: RunConfig, latents: NDArray[np.float16]) -> list[Image.Image]:
    """Pictures of normalised latents (B, c, h, w)."""
    import torch

    from lightgen_model.autoencoder import to_images

    assert config.features is not None
    vae = autoencoder(config.features, config.device)
    pixels = vae.decode(torch.from_numpy(latents).float().to(config.device))
    return [Image.fromarray(image) for image in to_images(pixels).cpu().numpy()]


def encode(config: RunConfig, images: Sequence[Image.Image]) -> NDArray[np.float16]:
    """Normalised latents (B, c, h, w) of pictures, as the autoencoder reads them without chance."""
    import torch

    from lightgen_model.autoencoder import to_pixels

    assert config.features is not None
    vae = autoencoder(config.features, config.device)
    pixels = to_pixels(torch.from_numpy(np.stack([np.asarray(image) for image in images])))
    return vae.latents(pixels).half().cpu().numpy()


@lru_cache(maxsize=2)
def _student(folder: Path, device: str, expected: ModelConfig, precision: str) -> "LightGen":
    import torch

    from lightgen_model import checkpoint

    model = checkpoint.load(folder, device, expected=expected)
    return model.to(torch.bfloat16) if precision == "bfloat16" else model
