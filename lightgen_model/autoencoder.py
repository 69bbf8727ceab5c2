"""The frozen VAE: pixels to moments, moments to a normalised latent, latent to pixels.

In:    a folder or hub repository of a diffusers `AutoencoderKL`.
Out:   tensors; whoever holds a latent holds a normalised one, scale and shift live here alone.

Shapes: pixels (B, 3, H, W) in [-1, 1]; moments (B, 2c, h, w) mean and log-variance as the VAE gives
them; latents (B, c, h, w) shifted and scaled (SD3: (z - 0.0609) * 1.5305).
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor


class Autoencoder:
    def __init__(self, vae: AutoencoderKL, device: torch.device | None = None) -> None:
        """`device`: where it computes, if offloading moves the weights there only for the call."""
        self.vae = vae.eval().requires_grad_(False)
        self.device = device
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(vae.config.shift_factor or 0.0)

    @staticmethod
    def load(
        folder: str | Path,
        revision: str | None = None,
        subfolder: str = "",
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Autoencoder":
        vae = AutoencoderKL.from_pretrained(
            str(folder), revision=revision, subfolder=subfolder, dtype=dtype
        )
        return Autoencoder(vae.to(device))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Moments of q(z | pixels), float32, not normalised."""
        dist = self.vae.encode(
            pixels.to(self.device or self.vae.device, self.vae.dtype)
        ).latent_dist
        return dist.parameters.float()

    def mean(self, moments: Tensor) -> Tensor:
        """The posterior's mean as a normalised latent."""
        return self.normalise(moments.chunk(2, dim=1)[0])

    def normalise(self, z: Tensor) -> Tensor:
        return (z - self.shift) * self.scale

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents to pixels in [-1, 1], float32."""
        z = latents / self.scale + self.shift
        pixels = self.vae.decode(z.to(self.device or self.vae.device, self.vae.dtype)).sample
        return pixels.float().clamp(-1, 1)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 pictures (B, H, W, 3) to pixels (B, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1] to uint8 pictures (B, H, W, 3)."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
