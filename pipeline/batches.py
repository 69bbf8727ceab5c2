"""Training batches as a pure function of the step.

In:    `features_<px>` and `text` tables at their pinned versions, joined by caption; moments or
       means, states in bfloat16 or int8.
Out:   normalised latents with padded text states, for the rows of a batch that a process asks for.
Rerun: the order is f(seed, epoch) over the pinned table; a resumed run skips to its step. Where the
       data stands is told by value (`position`), saved with the weights and compared on resume.

A table larger than `student.table_memory_gib` stays on disk, and a process reads its own rows of it
alone. What is drawn for a row of the batch depends on (seed, step, row), never on the process.

Shapes: B rows, c latent channels, h w latent cells, L text tokens (the longest of the global
batch), E text width.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from lightgen_model.latents import draw_latents, normalise
from pipeline.buffers import Buffers
from pipeline.emphasis import Emphasis
from pipeline.orders import Order, batch_rows
from pipeline.table_rows import Bytes, Rows, TableRows
from pipeline.text_states import Padded, TextStates

__all__ = [
    "Batch",
    "FeatureBatches",
    "Rows",
    "TableRows",
    "TextStates",
    "batch_rows",
    "position_of",
]

TOGETHER = 16  # rows of latents, which a core still has at hand from one operation to the next


class Batch(NamedTuple):
    latents: Tensor  # (B, c, h, w)
    text: Padded  # (B, L, E)
    lengths: Tensor  # (B,)
    features: Tensor | None = None  # (B, N, F), a vision model's

    @property
    def states(self) -> Tensor:
        """(B, L, E) float32"""
        return self.text.decoded()

    def decoded(self) -> "Batch":
        """The same with states in float32, for a processor that is the device itself."""
        return self._replace(text=Padded(self.states))

    def map(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        features = None if self.features is None else move(self.features)
        return Batch(move(self.latents), self.text.map(move), move(self.lengths), features)


@dataclass(frozen=True)
class FeatureBatches:
    source: TableRows  # moments (2c h w,) or means (c h w,) a row, float16, un-normalised
    num_rows: int
    text_rows: Rows  # (rows of the table,)
    text: TextStates
    cells: int  # h and w
    scale: float
    shift: float
    order: Order
    alignment: TableRows | None = None  # a vision model's features of the same rows
    alignment_width: int = 0  # F
    chosen: Rows | None = None  # (num_rows,) of the table; None: every row
    memory: Buffers = field(default_factory=Buffers)

    @staticmethod
    def load(
        source: TableRows,
        text: TextStates,
        *,
        cells: int,
        scale: float,
        shift: float,
        batch_size: int,
        seed: int,
        alignment: TableRows | None = None,
        alignment_width: int = 0,
        buckets: int = 0,
        kept: Collection[str] | None = None,
        emphasis: Emphasis | None = None,
    ) -> "FeatureBatches":
        """`kept`: the captions to learn from; None: all of them. `emphasis`: the tasks' shares."""
        captions = source.whole("caption_id").to_pylist()
        if not captions:
            raise ValueError("no features to train on: every picture was rejected")
        chosen = rows_of(captions, kept)
        rows = text.rows(captions)
        if alignment is not None:
            _same_rows(source, alignment)
        shown = rows if chosen is None else rows[chosen]
        every = range(len(captions)) if chosen is None else chosen
        groups = emphasis.groups([captions[row] for row in every]) if emphasis else ()
        order = Order(len(shown), batch_size, seed, text.lengths[shown], buckets, groups)
        place = (rows, text, cells, scale, shift, order)
        return FeatureBatches(source, len(shown), *place, alignment, alignment_width, chosen)

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    def take(self, step: int, part: Sequence[int], generators: Iterable[torch.Generator]) -> Batch:
        """Some rows of a step's batch. Each row's latent is drawn with its own generator."""
        everyone = self.of_step(step)
        rows = everyone[list(part)]
        latents = self._latents(rows, generators)
        longest = int(self.text.lengths[self.text_rows[everyone]].max())
        text_rows = self.text_rows[rows]
        lengths = torch.from_numpy(self.text.lengths[text_rows])
        return Batch(latents, self.text.padded(text_rows, longest), lengths, self._features(rows))

    def expect(self, step: int, part: Sequence[int]) -> None:
        """These rows are taken soon: where they lie on a disk, it may begin to read them."""
        rows = self.of_step(step)[list(part)]
        self.source.expect(rows)
        self.text.source.expect(self.text_rows[rows])
        if self.alignment is not None:
            self.alignment.expect(rows)

    def of_step(self, step: int) -> Rows:
        """The table's rows of a step's batch."""
        rows = self.order.rows(step)
        return rows if self.chosen is None else self.chosen[rows]

    def _latents(self, rows: Rows, generators: Iterable[torch.Generator]) -> Tensor:
        """Drawn from moments, each with its own generator; means are taken as they are."""
        if "means" in self.source.columns:
            return self._normalised(self.source.bits("means", rows))
        moments = shaped(self.source.fixed("moments", rows), self.cells)
        drawn = [
            draw_latents(one[None], self.scale, self.shift, generator)
            for one, generator in zip(moments, generators, strict=True)
        ]
        return torch.cat(drawn)

    def _normalised(self, means: Sequence[Bytes]) -> Tensor:
        """As `normalise` has it, a few rows at a time, in memory that was touched before."""
        out = self.memory.empty(2 * len(means) * means[0].size).view(torch.float32)
        out = out.view(len(means), -1)
        for first in range(0, len(means), TOGETHER):
            some = self.source.gathered(means[first : first + TOGETHER])
            rows = out[first : first + TOGETHER].copy_(torch.from_numpy(some))
            rows.sub_(self.shift).mul_(self.scale)
        return rearrange(out, "b (c h w) -> b c h w", h=self.cells, w=self.cells)

    def _features(self, rows: Rows) -> Tensor | None:
        if self.alignment is None:
            return None
        flat = torch.from_numpy(self.alignment.fixed("alignment", rows))
        per_row, rest = divmod(flat.shape[1], self.alignment_width)
        if rest:
            raise ValueError(
                f"student.model.repa.width: {self.alignment_width}, but the table has "
                f"{flat.shape[1]} values a picture"
            )
        return flat.view(len(rows), per_row, self.alignment_width)

    def position(self, step: int) -> dict[str, object]:
        """Which data follows after `step` steps, in plain values."""
        place = position_of(self.source, self.order.seed, self.batch_size)
        if self.order.buckets > 1:  # then the order depends on how long texts are, too
            text = self.text.source.snapshot
            place |= {"buckets": self.order.buckets, "text": text.content if text else ""}
        return {**place, "epoch_and_step": [*divmod(step, self.order.per_epoch)]}


def rows_of(captions: Sequence[str], kept: Collection[str] | None) -> Rows | None:
    """Rows of the captions that are kept; ValueError where none has a picture of this size."""
    if kept is None:
        return None
    rows = np.flatnonzero(np.fromiter((one in kept for one in captions), bool, len(captions)))
    if not len(rows):
        raise ValueError(
            f"student.subset: none of its {len(kept)} captions has a picture of this size; "
            "choose more captions"
        )
    return rows


def _same_rows(source: TableRows, alignment: TableRows) -> None:
    if source.whole("image_id").to_pylist() != alignment.whole("image_id").to_pylist():
        raise ValueError("the table of a vision model's features has other pictures: make it anew")


def position_of(source: TableRows, seed: int, batch_size: int) -> dict[str, object]:
    """The pinned table and what orders its rows. `content` is what counts; the version's number
    tells people where it is, and states of a time that knew no contents what they were made of."""
    table = source.snapshot
    pinned = {}
    if table:
        pinned = {"table": table.table, "version": table.version, "content": table.content}
    return {**pinned, "seed": seed, "batch_size": batch_size}


def fixed(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """A column of equally long lists as (rows, length)."""
    array = column.combine_chunks()
    flat: NDArray[np.float16] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), -1).copy()


def shaped(rows: NDArray[np.float16], cells: int) -> Tensor:
    """Rows of moments as (B, 2c, h, w) or of means as (B, c, h, w), float16."""
    return rearrange(torch.from_numpy(rows), "b (c h w) -> b c h w", h=cells, w=cells)


def mean_latents(
    column: pa.ChunkedArray, latents: str, cells: int, scale: float, shift: float
) -> Tensor:
    """Normalised latents (B, c, h, w) of a column of `moments` or `means`, without chance."""
    stored = shaped(fixed(column), cells).float()
    if latents == "moments":
        return draw_latents(stored, scale, shift, None)
    return normalise(stored, scale, shift)
