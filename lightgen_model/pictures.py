"""Pictures and masks as callers give them, and as the student needs them.

In:    PIL pictures, arrays (H, W, C) or (B, H, W, C), tensors (C, H, W) or (B, C, H, W), or a list
       of these; integers are 0..255, floats 0..1. In a mask, white means: draw anew.
Out:   pixels (B, 3, H, W) in [-1, 1], masks (B, 1, H, W) of zeros and ones, float32, on the CPU.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Pictures = Any  # what diffusers calls PipelineImageInput
WHITE = 0.5  # from here on a pixel of a mask is white, as in diffusers


@dataclass(frozen=True)
class Edit:
    """What inpainting keeps; one row an image to draw."""

    pixels: Tensor  # (B, 3, H, W) in [-1, 1]
    mask: Tensor  # (B, 1, H, W), 1 where drawn anew

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[2], self.pixels.shape[3]


def read_edit(image: Pictures, mask: Pictures, num_prompts: int, num_images: int) -> Edit | None:
    """None where neither is given; ValueError for one without the other, or of another size."""
    if (image is None) != (mask is None):
        given, missing = ("image", "mask_image") if mask is None else ("mask_image", "image")
        raise ValueError(f"{given} without {missing}; inpainting needs both")
    if image is None:
        return None
    pixels, masks = read_image(image), read_mask(mask)
    if pixels.shape[2:] != masks.shape[2:]:
        raise ValueError(
            f"mask_image is {masks.shape[3]} x {masks.shape[2]} and image {pixels.shape[3]} x "
            f"{pixels.shape[2]} (width x height); they must have one size"
        )
    return Edit(
        rows_for("image", pixels, num_prompts, num_images),
        rows_for("mask_image", masks, num_prompts, num_images),
    )


def read_image(image: Pictures) -> Tensor:
    """Pixels (B, 3, H, W) in [-1, 1]; ValueError for pictures of several sizes."""
    return _read("image", image, "RGB") * 2 - 1


def read_mask(mask: Pictures) -> Tensor:
    """Masks (B, 1, H, W); ValueError where a mask has nothing white."""
    masks = (_read("mask_image", mask, "L") >= WHITE).float()
    empty = (masks.flatten(1).amax(1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"mask_image {empty[0]} has no white pixel: there is nothing to draw")
    return masks


def rows_for(name: str, pictures: Tensor, num_prompts: int, num_images: int) -> Tensor:
    """One row an image to draw: a single picture serves all, else one picture a prompt."""
    if len(pictures) == 1:
        return pictures.expand(num_prompts * num_images, -1, -1, -1)
    if len(pictures) != num_prompts:
        raise ValueError(
            f"{name}: {len(pictures)} pictures for {num_prompts} prompts; allowed: one for all "
            "prompts, or one a prompt"
        )
    return pictures.repeat_interleave(num_images, dim=0)


def _read(name: str, pictures: Pictures, mode: str) -> Tensor:
    """(B, channels of the mode, H, W) in 0..1."""
    each = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
    if not each:
        raise ValueError(f"{name} is an empty list")
    rows = [_rows(name, one, mode) for one in each]
    sizes = sorted({f"{one.shape[3]} x {one.shape[2]}" for one in rows})
    if len(sizes) > 1:
        raise ValueError(f"{name}: all must have one width x height, not {', '.join(sizes)}")
    return torch.cat(rows)


def _rows(name: str, picture: Pictures, mode: str) -> Tensor:
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture.convert(mode))
    if not isinstance(picture, np.ndarray | Tensor):
        raise ValueError(
            f"{name} is a {type(picture).__name__}; allowed: a PIL picture, an array, a tensor, "
            "or a list of these"
        )
    # A copy of an array: one that is read-only cannot be a tensor.
    values = picture if isinstance(picture, Tensor) else torch.from_numpy(np.array(picture))
    values = values.detach().cpu()
    whole = not values.is_floating_point() and values.dtype != torch.bool
    rows = values.float() / (255 if whole else 1)
    if isinstance(picture, np.ndarray) and rows.ndim > 2:
        rows = rows.movedim(-1, -3)  # (..., H, W, C) -> (..., C, H, W)
    while rows.ndim < 4:
        rows = rows[None]
    channels = len(mode)
    if rows.ndim > 4 or rows.shape[1] != channels or not rows.numel():
        raise ValueError(f"{name} of shape {tuple(values.shape)}; it needs {channels} channels")
    # A comparison that NaN fails too.
    if not (rows.min() >= 0 and rows.max() <= 1):
        raise ValueError(
            f"{name} has values {values.min():.4g} to {values.max():.4g}; allowed: floats 0 to 1, "
            "integers 0 to 255"
        )
    return rows
