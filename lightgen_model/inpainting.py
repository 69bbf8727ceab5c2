"""Redraw a part of a picture: the tokens that a pixel mask asks for, and the seam to the rest.

In:    a picture's normalised latents and pixels, a mask in pixels, text and seed as for drawing.
Out:   latents whose other tokens are untouched; pixels that outside the mask are the original's.

Known tokens stay visible, the others start masked and follow the cosine schedule of their own
number (lightgen.md 3.2). Pictures of a batch may redraw different numbers of tokens, also none.

Shapes: B pictures, H x W pixels, N tokens. A mask is (B, H, W) or (1, H, W) for all; true, or above
0, is to be redrawn.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from lightgen_model.config import ModelConfig, SamplingConfig
from lightgen_model.model import LightGen
from lightgen_model.sampling import OnStep, sample

# Latents at the border of a hole know what was in it: the VAE sees further than a token.
MARGIN = 1  # tokens


def tokens_to_redraw(
    config: ModelConfig, mask: Tensor, image_size: int | tuple[int, int], margin: int = MARGIN
) -> Tensor:
    """Tokens that the mask touches and `margin` more around them: (B, N) bool."""
    rows, columns = config.grid_of(image_size)
    size = (rows * config.token_pixels, columns * config.token_pixels)
    if mask.ndim != 3 or mask.shape[1:] != size:
        raise ValueError(
            f"mask: shape {tuple(mask.shape)}; allowed: (pictures, height, width) with "
            f"{size[0]} x {size[1]} pixels, the size of the picture"
        )
    touched = F.max_pool2d((mask > 0).float()[:, None], config.token_pixels)  # (B, 1, h, w)
    wider = F.max_pool2d(touched, 2 * margin + 1, stride=1, padding=margin)
    return rearrange(wider > 0, "b 1 h w -> b (h w)")


def inpaint(
    model: LightGen,
    states: Tensor,
    lengths: Tensor,
    sampling: SamplingConfig,
    *,
    known: Tensor,
    mask: Tensor,
    seeds: Sequence[int | torch.Generator],
    margin: int = MARGIN,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents (B, c, h, w) with the masked part of `known` drawn anew."""
    stride = model.config.latent_stride
    image_size = (known.shape[2] * stride, known.shape[3] * stride)
    redraw = tokens_to_redraw(model.config, mask, image_size, margin)
    if len(redraw) not in (1, len(known)):
        raise ValueError(f"mask: {len(redraw)} masks for {len(known)} pictures; one each, or one")
    return sample(
        model,
        states,
        lengths,
        sampling,
        image_size=image_size,
        seeds=seeds,
        known=known,
        redraw=redraw.expand(len(known), -1),
        on_step=on_step,
    )


def blend(original: Tensor, drawn: Tensor, mask: Tensor) -> Tensor:
    """Pixels (B, 3, H, W): the original where the mask is 0, the drawn ones where it is 1.

    In between a float mask mixes. The VAE changes every pixel a little; outside the mask nothing of
    that remains.
    """
    if not original.shape == drawn.shape or original.shape[-2:] != mask.shape[-2:]:
        raise ValueError(
            f"blend: original {tuple(original.shape)}, drawn {tuple(drawn.shape)}, mask "
            f"{tuple(mask.shape)}; allowed: pictures of one shape and masks of their size"
        )
    share = mask[:, None].to(original.dtype)
    return torch.where(share > 0, torch.lerp(original, drawn, share), original)
