"""The frozen T5 encoder: captions to states and lengths.

In:    a folder or hub repository of a T5 encoder with its tokenizer.
Out:   states (B, L, E) float32, zero beyond each length, and lengths (B,).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel


class TextEncoder:
    def __init__(
        self,
        model: T5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        device: torch.device | None = None,
    ) -> None:
        """`device`: where it computes, if offloading moves the weights there only for the call."""
        self.device = device
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.length = tokenizer, length

    @staticmethod
    def load(
        folder: str | Path,
        length: int,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "TextEncoder":
        name = str(folder)
        model = T5EncoderModel.from_pretrained(name, revision=revision, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        return TextEncoder(model.to(device), tokenizer, length)

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Last hidden states, padded to `length`; a longer caption is cut there.

        Each caption is encoded at the full length with its padding masked, so that its states do
        not depend on its batch.
        """
        batch = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).to(self.device or self.model.device)
        states = self.model(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        keep = batch.attention_mask.bool()
        return states.float() * keep[:, :, None], keep.sum(1)
