"""Text states of captions, padded for a batch.

In:    the table `text`, whose states have no padding: bfloat16, or int8 with float16 scales.
Out:   `Padded` states of the captions asked for, as they are stored; float32 when they are decoded,
       which is done where they are used: a GPU decodes faster than they travel.
Rerun: the same rows give the same values. A missing caption is named before training starts.

Shapes: B captions, L text tokens, E text width, G groups of channels that share a scale.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.buffers import Buffers
from pipeline.quantization import restored
from pipeline.table_rows import Rows, TableRows


class Padded(NamedTuple):
    """Zero beyond each length."""

    values: Tensor  # (B, L, E) bfloat16 or int8
    scales: Tensor | None = None  # (B, L, G) float16, of int8

    def decoded(self) -> Tensor:
        """States (B, L, E) float32."""
        if self.scales is None:
            return self.values.float()
        return restored(self.values, self.scales)

    def map(self, move: Callable[[Tensor], Tensor]) -> "Padded":
        return Padded(move(self.values), None if self.scales is None else move(self.scales))


class TextStates:
    """T5 states of every caption, without padding until they are taken."""

    def __init__(self, rows: TableRows, pinned: bool = False) -> None:
        """`pinned`: batches are made in memory that a GPU reads by itself."""
        self.source, self.pinned = rows, pinned
        self.memory = {name: Buffers(pinned) for name in ("states", "scales")}
        names = rows.whole("caption_id").to_pylist()
        self.place = {name: row for row, name in enumerate(names)}
        self.lengths = rows.whole("length").to_numpy().astype(np.int64)

    def require_width(self, width: int) -> None:
        if not len(self.lengths):
            return
        given = self.padded(np.zeros(1, np.int64)).values.shape[2]
        if given != width:
            raise ValueError(
                f"student.model.text_width: {width}, but the text encoder's states are {given} wide"
            )

    def rows(self, caption_ids: Sequence[str]) -> Rows:
        """Row of each caption; a missing one is named before training starts."""
        missing = sorted({name for name in caption_ids if name not in self.place})
        if missing:
            raise ValueError(f"{len(missing)} captions have no text states, such as {missing[:3]}")
        return np.array([self.place[name] for name in caption_ids], np.int64)

    def take(self, rows: Rows, longest: int = 0) -> tuple[Tensor, Tensor]:
        """States (B, L, E) float32, zero beyond each length, and lengths (B,).

        L is `longest`, or what these rows need where that is more.
        """
        return self.padded(rows, longest).decoded(), torch.from_numpy(self.lengths[rows])

    def padded(self, rows: Rows, longest: int = 0) -> Padded:
        """The same states as they are stored."""
        length = max(longest, int(self.lengths[rows].max()))
        if "scales" not in self.source.columns:
            return Padded(self._column("states", rows, length, torch.bfloat16))
        values = self._column("states", rows, length, torch.int8)
        return Padded(values, self._column("scales", rows, length, torch.float16))

    def _column(self, name: str, rows: Rows, length: int, kind: torch.dtype) -> Tensor:
        """(B, length, values a token); rows are copied in the order in which they lie on disk."""
        views, lengths = self.source.bits(name, rows), self.lengths[rows].tolist()
        token = next((len(v) // n for v, n in zip(views, lengths, strict=True) if n), 0)
        out = self.memory[name].empty(len(rows) * length * token).view(len(rows), -1)
        content = out.numpy()
        for place in np.argsort(rows).tolist():
            view, filled = views[place], lengths[place] * token
            if len(view) != filled:
                raise ValueError(
                    f"text.{name}: row {rows[place]} has {len(view)} bytes, {lengths[place]} "
                    f"tokens of {token} bytes are {filled}"
                )
            content[place, :filled] = view
            if filled < length * token:
                content[place, filled:] = 0
        return out.view(kind).view(len(rows), length, -1)
