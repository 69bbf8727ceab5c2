"""The frozen vision model whose features a student's hidden states are drawn towards (REPA).

In:    a folder or hub repository of a transformers vision transformer, such as DINOv2; pixels.
Out:   features of its patches, (B, N, F), one patch a token of the student.
"""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

# ImageNet's, which these models were trained with.
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VisionEncoder:
    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self.patch_size = int(model.config.patch_size)

    @staticmethod
    def load(
        folder: str | Path,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "VisionEncoder":
        model = AutoModel.from_pretrained(str(folder), revision=revision, dtype=dtype)
        return VisionEncoder(model.to(device))

    def image_size(self, grid: int) -> int:
        """Pixels a side that make as many patches a side as the student has tokens."""
        return grid * self.patch_size

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to patch features (B, N, F), float32, in raster order."""
        return self.patches(self.model, pixels, self.patch_size).float()

    @staticmethod
    def patches(model: PreTrainedModel, pixels: Tensor, patch_size: int) -> Tensor:
        """The same of any such model, in its dtype and with gradients."""
        mean, spread = (
            rearrange(torch.tensor(x, device=pixels.device), "c -> c 1 1") for x in (MEAN, SPREAD)
        )
        inputs = ((pixels + 1) / 2 - mean) / spread
        out = model(inputs.to(model.device, model.dtype)).last_hidden_state
        patches = (pixels.shape[2] // patch_size) * (pixels.shape[3] // patch_size)
        return out[:, out.shape[1] - patches :]  # after class and register tokens
