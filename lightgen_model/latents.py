"""Latents from what the VAE says of a picture, without loading the VAE.

In:    moments (B, 2c, h, w), mean and log-variance as the VAE gives them, or means (B, c, h, w),
       with its scale and shift.
Out:   normalised latents (B, c, h, w).
"""

import torch
from torch import Tensor

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # diffusers' clamp


def draw_latents(
    moments: Tensor, scale: float, shift: float, generator: torch.Generator | None
) -> Tensor:
    """One normalised latent a row of moments; the mean when no generator is given.

    Drawn anew each epoch, as the published cache does (lightgen.md 2.3).
    """
    mean, log_variance = moments.float().chunk(2, dim=1)
    if generator is not None:
        spread = torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE))
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
        mean = mean + spread * noise
    return normalise(mean, scale, shift)


def normalise(z: Tensor, scale: float, shift: float) -> Tensor:
    """What the autoencoder gives, centred and of about unit spread."""
    return (z - shift) * scale
