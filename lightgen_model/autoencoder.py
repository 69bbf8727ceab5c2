"""The frozen autoencoder: pixels to moments or means, to normalised latents, and back to pixels.

In:    a folder or hub repository of a diffusers `AutoencoderKL` (SD 3.5, Flux) or `AutoencoderDC`
       (DC-AE, arXiv 2410.10733: no posterior, other stride and channels).
Out:   tensors; whoever holds a latent holds a normalised one, scale and shift live here alone.

Shapes: pixels (B, 3, H, W) in [-1, 1]; moments (B, 2c, h, w) mean and log-variance as the VAE gives
them; means (B, c, h, w) alike; latents (B, c, h, w) shifted and scaled
(SD 3: (z - 0.0609) * 1.5305, Flux: (z - 0.1159) * 0.3611, DC-AE: no shift).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL
from torch import Tensor

from lightgen_model.latents import normalise

CLASSES = {"AutoencoderKL": AutoencoderKL, "AutoencoderDC": AutoencoderDC}


class Autoencoder:
    def __init__(
        self, vae: AutoencoderKL | AutoencoderDC, device: torch.device | None = None
    ) -> None:
        """`device`: where it computes, if offloading moves the weights there only for the call."""
        self.vae = vae.eval().requires_grad_(False)
        self.device = device
        self.scale, self.shift = scale_and_shift(vae.config, type(vae).__name__)
        self.has_posterior = isinstance(vae, AutoencoderKL)

    @staticmethod
    def load(
        folder: str | Path,
        revision: str | None = None,
        subfolder: str = "",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Autoencoder":
        """ValueError where the place holds another class, or one that does not say its scale."""
        values = _values(str(folder), revision, subfolder)
        vae = CLASSES[values["_class_name"]].from_pretrained(
            str(folder), revision=revision, subfolder=subfolder, dtype=dtype
        )
        return Autoencoder(vae.to(device))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Moments of q(z | pixels), float32, not normalised; only of a VAE that has a posterior."""
        if not self.has_posterior:
            raise ValueError(
                f"{type(self.vae).__name__} gives one latent a picture and no log-variance; "
                "ask for means"
            )
        return self._posterior(pixels).parameters.float()

    @torch.inference_mode()
    def means(self, pixels: Tensor) -> Tensor:
        """The posterior's means, or the latents where there is none; float32, not normalised."""
        if self.has_posterior:
            return self._posterior(pixels).mean.float()
        return self.vae.encode(self._ready(pixels)).latent.float()

    def latents(self, pixels: Tensor) -> Tensor:
        """Normalised latents of pictures, without chance."""
        return self.normalise(self.means(pixels))

    def mean(self, moments: Tensor) -> Tensor:
        """The posterior's mean as a normalised latent."""
        return self.normalise(moments.chunk(2, dim=1)[0])

    def normalise(self, z: Tensor) -> Tensor:
        return normalise(z, self.scale, self.shift)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents to pixels in [-1, 1], float32."""
        z = latents / self.scale + self.shift
        return self.vae.decode(self._ready(z)).sample.float().clamp(-1, 1)

    def _posterior(self, pixels: Tensor) -> Any:
        return self.vae.encode(self._ready(pixels)).latent_dist

    def _ready(self, x: Tensor) -> Tensor:
        return x.to(self.device or self.vae.device, self.vae.dtype)


def scale_and_shift(values: Mapping[str, Any], name: str) -> tuple[float, float]:
    """Of an autoencoder's config; one without a shift has none, one without a scale is an error."""
    if values.get("scaling_factor") is None:
        raise ValueError(
            f"this {name} does not say its scaling_factor, without which its latents have no "
            "known size; write it into its config.json"
        )
    if values.get("latents_mean") is not None or values.get("latents_std") is not None:
        raise ValueError(
            f"this {name} scales each channel (latents_mean, latents_std); allowed: one "
            "scaling_factor and shift_factor"
        )
    return float(values["scaling_factor"]), float(values.get("shift_factor") or 0.0)


def _values(place: str, revision: str | None, subfolder: str) -> Mapping[str, Any]:
    """The config as its file has it: diffusers would fill in SD 1's scale where there is none."""
    if Path(place).is_dir() and not (Path(place) / subfolder / "config.json").is_file():
        raise ValueError(
            f"{Path(place) / subfolder} has no config.json of an autoencoder; in the folder of a "
            "whole pipeline it is the subfolder vae"
        )
    values: Mapping[str, Any] = AutoencoderKL.load_config(
        place, revision=revision, subfolder=subfolder
    )
    name = values.get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"{place} holds a {name}; allowed: {', '.join(CLASSES)}")
    scale_and_shift(values, f"{name} at {Path(place) / subfolder}")
    return values


def to_pixels(images: Tensor) -> Tensor:
    """uint8 pictures (B, H, W, 3) to pixels (B, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] to uint8 pictures (B, H, W, 3)."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
