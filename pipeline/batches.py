"""Training batches as a pure function of the step.

In:    `features_<px>` and `text` tables, joined by caption.
Out:   normalised latents with padded text states.
Rerun: order = f(seed, epoch) over the pinned tables; a resumed run skips to its step.

Shapes: B rows, c latent channels, h w latent cells, L text tokens (the longest of the batch), E
text width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lightgen_model.autoencoder import draw_latents


class TextStates:
    """T5 states of every caption, unpadded in memory, padded when taken."""

    def __init__(self, table: pa.Table) -> None:
        self.place = {name: row for row, name in enumerate(table["caption_id"].to_pylist())}
        self.lengths = table["length"].to_numpy()
        self.states = [
            torch.from_numpy(np.frombuffer(bits, np.int16).reshape(length, -1).copy())
            for bits, length in zip(table["states"].to_pylist(), self.lengths.tolist(), strict=True)
        ]

    def require_width(self, width: int) -> None:
        given = self.states[0].shape[1] if self.states else width
        if given != width:
            raise ValueError(
                f"student.model.text_width: {width}, but the text encoder's states are {given} wide"
            )

    def rows(self, caption_ids: Sequence[str]) -> np.ndarray:
        """Row of each caption; a missing one is named before training starts."""
        missing = sorted({name for name in caption_ids if name not in self.place})
        if missing:
            raise ValueError(f"{len(missing)} captions have no text states, such as {missing[:3]}")
        return np.array([self.place[name] for name in caption_ids], np.int64)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """States (B, L, E) float32, zero beyond each length, and lengths (B,)."""
        chosen = [self.states[row].view(torch.bfloat16).float() for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        return padded, torch.from_numpy(self.lengths[rows].astype(np.int64))


@dataclass(frozen=True)
class FeatureBatches:
    moments: Tensor  # (N, 2c, h, w) float16, un-normalised
    text_rows: np.ndarray  # (N,)
    text: TextStates
    scale: float
    shift: float
    batch_size: int
    seed: int

    @staticmethod
    def load(
        features: pa.Table,
        text: TextStates,
        *,
        cells: int,
        scale: float,
        shift: float,
        batch_size: int,
        seed: int,
    ) -> "FeatureBatches":
        if len(features) == 0:
            raise ValueError("no features to train on: every picture was rejected")
        flat = features["moments"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        moments = torch.from_numpy(flat.copy()).view(len(features), -1, cells, cells)
        rows = text.rows(features["caption_id"].to_pylist())
        return FeatureBatches(moments, rows, text, scale, shift, batch_size, seed)

    def take(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, c, h, w), states (B, L, E) and lengths (B,) of a step."""
        rows = batch_rows(len(self.moments), self.batch_size, self.seed, step)
        latents = draw_latents(
            self.moments[torch.from_numpy(rows)], self.scale, self.shift, generator
        )
        states, lengths = self.text.take(self.text_rows[rows])
        return latents, states, lengths


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Rows of one global step: every epoch a new permutation, its remainder dropped.

    A set smaller than a batch is repeated within it.
    """
    per_epoch = max(1, num_rows // batch_size)
    epoch, place = divmod(step, per_epoch)
    return np.resize(epoch_order(num_rows, seed, epoch)[place * batch_size :], batch_size)


@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)
