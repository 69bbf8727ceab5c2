"""Encoders that give zeros: 16 channels of 2 x 2 cells a picture, 4 tokens of 12 values a caption.

Shapes: B pictures or captions, L tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

TOKENS, WIDTH, CHANNELS, STRIDE = 4, 12, 16, 8


class NullAutoencoder:
    has_posterior = True
    scale, shift = 1.0, 0.0

    def __init__(self, device: str) -> None:
        self.device = device

    def encode(self, pixels: Tensor) -> Tensor:
        return torch.zeros(len(pixels), 2 * CHANNELS, *self._cells(pixels))

    def means(self, pixels: Tensor) -> Tensor:
        return torch.zeros(len(pixels), CHANNELS, *self._cells(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        height, width = (STRIDE * side for side in latents.shape[2:])
        return torch.zeros(len(latents), 3, height, width)

    @staticmethod
    def _cells(pixels: Tensor) -> tuple[int, int]:
        return pixels.shape[2] // STRIDE, pixels.shape[3] // STRIDE


class NullTextEncoder:
    def __init__(self, device: str, length: int) -> None:
        self.device, self.length = device, length

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        return [[1] * min(TOKENS, self.length)] * len(captions)

    def encode_tokens(self, tokens: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(row) for row in tokens])
        return torch.zeros(len(tokens), length, WIDTH), lengths
