"""The frozen text encoder: captions to states and lengths.

In:    a folder or hub repository of a T5 (v1.1, Flan, uT5) or T5Gemma with its tokenizer; of a
       whole sequence-to-sequence model the encoder alone is loaded.
Out:   states (B, L, E) float32, zero beyond each length, and lengths (B,).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5EncoderModel,
    T5GemmaEncoderModel,
    UMT5EncoderModel,
)

CLASSES = {"t5": T5EncoderModel, "umt5": UMT5EncoderModel, "t5gemma": T5GemmaEncoderModel}


class TextEncoder:
    def __init__(
        self,
        model: PreTrainedModel,
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
        model = load_model(str(folder), revision, dtype)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), revision=revision)
        return TextEncoder(model.to(device), tokenizer, length)

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """The tokens of each caption, without padding; a longer caption is cut at `length`."""
        ids = self.tokenizer(list(captions), truncation=True, max_length=self.length).input_ids
        return [list(row) for row in ids]

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Last hidden states, padded to `length`; a longer caption is cut there.

        Each caption is encoded at the full length with its padding masked, so that its states do
        not depend on its batch.
        """
        return self.encode_tokens(self.tokens(captions), self.length)

    @torch.inference_mode()
    def encode_tokens(self, tokens: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
        """States of tokens, padded to `length` on the right; lengths. No caption sees padding."""
        padding = self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[padding] * (length - len(row))] for row in tokens])
        lengths = torch.tensor([len(row) for row in tokens])
        keep = torch.arange(length) < lengths[:, None]  # (B, L)
        ids, lengths, keep = (
            each.to(self.device or self.model.device) for each in (ids, lengths, keep)
        )
        states = self.model(ids, attention_mask=keep.long()).last_hidden_state
        return states.float() * keep[:, :, None], lengths


def load_model(
    place: str, revision: str | None = None, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The encoder at a place; ValueError for one of another kind."""
    kind = AutoConfig.from_pretrained(place, revision=revision).model_type
    if kind not in CLASSES:
        raise ValueError(f"{place} holds a model of type {kind}; allowed: {', '.join(CLASSES)}")
    # T5's own encoder sets this itself; T5Gemma's wants to be told.
    rest = {"is_encoder_decoder": False} if kind == "t5gemma" else {}
    return CLASSES[kind].from_pretrained(place, revision=revision, dtype=dtype, **rest)
