"""Captions to rows of the table `text`: states of real tokens alone, once a caption.

In:    captions with their ids, a text encoder.
Out:   tables of rows in the order of the captions. Tokens are made ready, and states packed and
       written, in threads beside the encoder.
Rerun: the same captions give the same bytes. With `text_padding: longest` a caption shares its
       batch with others of about its length, so that little is spent on padding.

Shapes: B captions, L text tokens, E text width, G groups of channels that share a scale.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.config import FeaturesConfig
from pipeline.encoders import batch_size
from pipeline.feature_tables import TEXT
from pipeline.halving import BatchSize
from pipeline.quantization import quantized, relative_errors, restored
from pipeline.streams import Outlet, ahead, beside
from pipeline.tables import CHUNK_ROWS, Shard, Table, TableFolder

if TYPE_CHECKING:
    from torch import Tensor

    from lightgen_model.text_encoder import TextEncoder

# Captions that are sorted by length together: of T5-XXL's states 1 GB while they are put in order.
SORTED_TOGETHER = 1024
MULTIPLE = 8  # of tokens that a batch is padded to: what matrix units like
ERROR, FINITE = "error", "finite"
DEPTH = 3  # batches ready

Captions = Sequence[tuple[str, str]]  # caption_id, caption


class TokenBatch(NamedTuple):
    """Captions that are encoded together."""

    rows: list[int]  # their places among all captions
    tokens: list[list[int]]
    length: int  # padded to


class Packed(NamedTuple):
    """What is stored of a batch's states, still on the encoder's device."""

    rows: list[int]
    lengths: list[int]
    columns: "Mapping[str, Tensor]"  # (B, L, ...), cut to each length; error and finite (B,)


def write_text(
    encoder: "TextEncoder",
    parts: Sequence[tuple[str, Captions]],
    values: FeaturesConfig,
    folder: TableFolder,
    progress: Callable[[int], None],
) -> list[Shard]:
    """A shard of each part's captions, by the part's name; one is finished beside the next."""
    table, done, outlets = folder.table, 0, list[Outlet[Packed, Shard]]()

    def batches() -> Iterator[tuple[int, TokenBatch]]:
        for number, (_, captions) in enumerate(parts):
            for batch in token_batches(encoder, captions, values):
                yield number, batch

    def writer(shard: str, captions: Captions) -> Callable[[Iterator[Packed]], Shard]:
        return lambda packed: folder.write_shard(shard, in_order(packed, captions, table))

    size = batch_size(values, table.name)
    # While those sorted together are written at once, as many again are encoded.
    depth = DEPTH + SORTED_TOGETHER // values.batch_size
    with ExitStack() as stack:
        ready = stack.enter_context(ahead(batches(), lambda one: one, threads=1, depth=DEPTH))
        for number, own in groupby(ready, key=itemgetter(0)):
            if number > 1:  # two shards at most are in memory
                outlets[number - 2].finish()
            outlets.append(stack.enter_context(beside(writer(*parts[number]), depth=depth)))
            for _, batch in own:
                for packed in encode_batch(encoder, batch, table, size):
                    outlets[number].put(packed)
                done += len(batch.rows)
                progress(done)
            outlets[number].end()
        return [outlet.finish() for outlet in outlets]


def token_batches(
    encoder: "TextEncoder", captions: Captions, values: FeaturesConfig
) -> Iterator[TokenBatch]:
    """All captions in batches: as they come and at full length, or by length."""
    full = values.text_padding == "full"
    together = max(1, len(captions)) if full else SORTED_TOGETHER
    for start in range(0, len(captions), together):
        tokens = encoder.tokens([text for _, text in captions[start : start + together]])
        order = range(len(tokens))
        by_length = order if full else sorted(order, key=lambda row: len(tokens[row]))
        for first in range(0, len(tokens), values.batch_size):
            chosen = by_length[first : first + values.batch_size]
            longest = -(-max(len(tokens[row]) for row in chosen) // MULTIPLE) * MULTIPLE
            length = encoder.length if full else min(encoder.length, longest)
            rows = [start + row for row in chosen]
            yield TokenBatch(rows, [tokens[row] for row in chosen], length)


def encode_batch(
    encoder: "TextEncoder", batch: TokenBatch, table: Table, size: BatchSize
) -> Iterator[Packed]:
    """What is stored of a batch, in parts where memory does not hold it whole."""

    def encode(places: Sequence[int]) -> Packed:
        tokens = [batch.tokens[place] for place in places]
        states, _ = encoder.encode_tokens(tokens, batch.length)  # (B, L, E)
        rows = [batch.rows[place] for place in places]
        return Packed(rows, [len(row) for row in tokens], pack(states, table))

    yield from size.through(range(len(batch.rows)), encode)


def pack(states: "Tensor", table: Table) -> "dict[str, Tensor]":
    """States (B, L, E) as the table keeps them."""
    import torch

    if table is TEXT:
        finite = states.isfinite().flatten(1).all(1)
        return {"states": states.to(torch.bfloat16).view(torch.int16), FINITE: finite}
    values, scales = quantized(states)
    errors = relative_errors(states, restored(values, scales))
    finite = scales.isfinite().flatten(1).all(1)
    return {"states": values, "scales": scales, ERROR: errors, FINITE: finite}


def unpack(row: Mapping[str, bytes], length: int) -> "Tensor":
    """States (L, E) of a row of the table, which has `scales` where they are int8."""
    import torch

    bits = bytearray(row["states"])
    if "scales" not in row:
        return torch.frombuffer(bits, dtype=torch.bfloat16).view(length, -1)
    values = torch.frombuffer(bits, dtype=torch.int8).view(length, -1)
    scales = torch.frombuffer(bytearray(row["scales"]), dtype=torch.float16).view(length, -1)
    return restored(values, scales)


def in_order(batches: Iterator[Packed], captions: Captions, table: Table) -> Iterator[pa.Table]:
    """Rows in the order of the captions, as soon as those before them are there."""
    waiting: dict[int, dict[str, Any]] = {}
    first = 0
    for packed in batches:
        waiting |= rows_of(packed, captions)
        last = first
        while last in waiting:
            last += 1
        rows = [waiting.pop(row) for row in range(first, last)]
        for start in range(0, len(rows), CHUNK_ROWS):
            yield as_table(rows[start : start + CHUNK_ROWS], table)
        first = last


def as_table(rows: Sequence[Mapping[str, Any]], table: Table) -> pa.Table:
    """The states of each row lie where the encoder left them: they are nearly all there is, and
    are copied once, when they are written."""
    arrays = []
    for column in table.schema:
        given = [row[column.name] for row in rows]
        alone = pa.types.is_large_binary(column.type)
        pieces = map(_alone, given) if alone else [pa.array(given, column.type)]
        arrays.append(pa.chunked_array(pieces, column.type))
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _alone(states: memoryview) -> pa.LargeBinaryArray:
    """One row, without a copy."""
    ends = np.array([0, states.nbytes], np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(states)]
    return pa.Array.from_buffers(pa.large_binary(), 1, buffers)


def rows_of(packed: Packed, captions: Captions) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each caption's row, its states not copied yet; ValueError where they are no numbers, or too
    large to keep."""
    columns = {name: values.cpu().numpy() for name, values in packed.columns.items()}
    finite, errors = columns.pop(FINITE), columns.pop(ERROR, None)
    for place, (row, length) in enumerate(zip(packed.rows, packed.lengths, strict=True)):
        caption_id, caption = captions[row]
        if not finite[place]:
            raise ValueError(
                f"features.text_encoder: the states of caption {caption_id} ({caption[:60]!r}) are "
                "not finite or beyond what is stored"
            )
        kept: dict[str, Any] = {"caption_id": caption_id, "length": length}
        kept |= {name: values[place, :length].data for name, values in columns.items()}
        yield row, kept if errors is None else {**kept, ERROR: float(errors[place])}
