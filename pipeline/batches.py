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

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from lightgen_model.latents import draw_latents, normalise
from pipeline.encoded_text import unpack
from pipeline.tables import Snapshot, at_hand, read, take

Rows = NDArray[np.int64]


class TableRows:
    """Some columns of a table by row number: held in memory, or read when asked for."""

    def __init__(
        self,
        held: pa.Table | None,
        root: Path | None = None,
        snapshot: Snapshot | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        self.held = None if held is None else held.combine_chunks()
        self.root, self.snapshot = root, snapshot
        self.columns = held.column_names if held is not None else columns

    @staticmethod
    def open(
        root: Path, snapshot: Snapshot, columns: Sequence[str], memory_gib: float
    ) -> "TableRows":
        """Checksums are compared where the files are read whole, which is where they are held."""
        size = sum(shard.size for shard in snapshot.shards)
        root = root if size <= memory_gib * 2**30 else at_hand(root, snapshot)
        held = read(root, snapshot, columns) if size <= memory_gib * 2**30 else None
        return TableRows(held, root, snapshot, columns)

    def take(self, rows: Rows) -> pa.Table:
        """Rows by number, in the order asked for."""
        if self.held is not None:
            return self.held.take(pa.array(rows))
        assert self.root is not None and self.snapshot is not None
        return take(self.root, self.snapshot, rows.tolist(), self.columns)

    def whole(self, column: str) -> pa.ChunkedArray:
        """All of a small column."""
        if self.held is not None:
            return self.held[column]
        assert self.root is not None and self.snapshot is not None
        return read(self.root, self.snapshot, [column], check=False)[column]


class TextStates:
    """T5 states of every caption, without padding until they are taken."""

    def __init__(self, rows: TableRows) -> None:
        self.source = rows
        self.columns = [name for name in ("states", "scales") if name in rows.columns]
        names = rows.whole("caption_id").to_pylist()
        self.place = {name: row for row, name in enumerate(names)}
        self.lengths = rows.whole("length").to_numpy().astype(np.int64)

    def require_width(self, width: int) -> None:
        if not len(self.lengths):
            return
        given = self.take(np.zeros(1, np.int64))[0].shape[2]
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
        lengths = self.lengths[rows]
        stored = self.source.take(rows).select(self.columns).to_pylist()
        padded: Tensor | None = None
        for number, (row, length) in enumerate(zip(stored, lengths.tolist(), strict=True)):
            states = unpack(row, length)
            if padded is None:
                shape = (len(rows), max(longest, int(lengths.max())), states.shape[1])
                padded = torch.zeros(shape)
            padded[number, :length] = states
        assert padded is not None
        return padded, torch.from_numpy(lengths)


class Batch(NamedTuple):
    latents: Tensor  # (B, c, h, w)
    states: Tensor  # (B, L, E)
    lengths: Tensor  # (B,)
    features: Tensor | None = None  # (B, N, F), a vision model's


@dataclass(frozen=True)
class FeatureBatches:
    source: TableRows  # moments (2c h w,) or means (c h w,) a row, float16, un-normalised
    num_rows: int
    text_rows: Rows  # (rows of the table,)
    text: TextStates
    cells: int  # h and w
    scale: float
    shift: float
    batch_size: int
    seed: int
    alignment: TableRows | None = None  # a vision model's features of the same rows
    alignment_width: int = 0  # F
    chosen: Rows | None = None  # (num_rows,) of the table; None: every row

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
        kept: Collection[str] | None = None,
    ) -> "FeatureBatches":
        """`kept`: the captions to learn from; None: all of them."""
        captions = source.whole("caption_id").to_pylist()
        if not captions:
            raise ValueError("no features to train on: every picture was rejected")
        chosen = rows_of(captions, kept)
        rows = text.rows(captions)
        if alignment is not None:
            _same_rows(source, alignment)
        number = len(captions) if chosen is None else len(chosen)
        place = (number, rows, text, cells, scale, shift, batch_size, seed)
        return FeatureBatches(source, *place, alignment, alignment_width, chosen)

    def take(self, step: int, part: Sequence[int], generators: Sequence[torch.Generator]) -> Batch:
        """Some rows of a step's batch. Each row's latent is drawn with its own generator."""
        everyone = self.of_step(step)
        rows = everyone[list(part)]
        latents = self._latents(rows, generators)
        longest = int(self.text.lengths[self.text_rows[everyone]].max())
        states, lengths = self.text.take(self.text_rows[rows], longest)
        return Batch(latents, states, lengths, self._features(rows))

    def of_step(self, step: int) -> Rows:
        """The table's rows of a step's batch."""
        rows = batch_rows(self.num_rows, self.batch_size, self.seed, step)
        return rows if self.chosen is None else self.chosen[rows]

    def _latents(self, rows: Rows, generators: Sequence[torch.Generator]) -> Tensor:
        """Drawn from moments, each with its own generator; means are taken as they are."""
        table = self.source.take(rows)
        if "means" in table.column_names:
            return mean_latents(table["means"], "means", self.cells, self.scale, self.shift)
        moments = shaped(table["moments"], self.cells)
        drawn = [
            draw_latents(one[None], self.scale, self.shift, generator)
            for one, generator in zip(moments, generators, strict=True)
        ]
        return torch.cat(drawn)

    def _features(self, rows: Rows) -> Tensor | None:
        if self.alignment is None:
            return None
        bits = b"".join(self.alignment.take(rows)["alignment"].to_pylist())
        flat = torch.frombuffer(bytearray(bits), dtype=torch.float16)
        per_row, rest = divmod(len(flat) // len(rows), self.alignment_width)
        if rest:
            raise ValueError(
                f"student.model.repa.width: {self.alignment_width}, but the table has "
                f"{len(flat) // len(rows)} values a picture"
            )
        return flat.view(len(rows), per_row, self.alignment_width)

    def position(self, step: int) -> dict[str, object]:
        """Which data follows after `step` steps, in plain values."""
        place = divmod(step, max(1, self.num_rows // self.batch_size))
        return {**position_of(self.source, self.seed, self.batch_size), "epoch_and_step": [*place]}


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
    """The pinned table and what orders its rows."""
    table = source.snapshot
    pinned = {"table": table.table, "version": table.version} if table else {}
    return {**pinned, "seed": seed, "batch_size": batch_size}


def fixed(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """A column of equally long lists as (rows, length)."""
    array = column.combine_chunks()
    flat: NDArray[np.float16] = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), -1).copy()


def shaped(column: pa.ChunkedArray, cells: int) -> Tensor:
    """A column of moments (B, 2c, h, w) or means (B, c, h, w), float16."""
    return rearrange(torch.from_numpy(fixed(column)), "b (c h w) -> b c h w", h=cells, w=cells)


def mean_latents(
    column: pa.ChunkedArray, latents: str, cells: int, scale: float, shift: float
) -> Tensor:
    """Normalised latents (B, c, h, w) of a column of `moments` or `means`, without chance."""
    stored = shaped(column, cells).float()
    if latents == "moments":
        return draw_latents(stored, scale, shift, None)
    return normalise(stored, scale, shift)


def batch_rows(num_rows: int, batch_size: int, seed: int, step: int) -> Rows:
    """Rows of one global step: every epoch a new permutation, its remainder dropped.

    A set smaller than a batch is repeated within it.
    """
    per_epoch = max(1, num_rows // batch_size)
    epoch, place = divmod(step, per_epoch)
    return np.resize(epoch_order(num_rows, seed, epoch)[place * batch_size :], batch_size)


@lru_cache(maxsize=2)
def epoch_order(num_rows: int, seed: int, epoch: int) -> Rows:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_rows)
