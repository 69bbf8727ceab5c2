"""Accepted pictures to rows of the tables of features: each is decoded once for all of them.

In:    an image shard's rows, and the tables that are made of them.
Out:   one shard a table, written together. Pictures are read, decoded and fitted, and results
       written, in threads beside the encoders.
Rerun: the same pictures give the same bytes, whichever of the tables are made.

Shapes: B pictures, S pixels a side, C latent channels, h w latent cells, N image tokens, F width of
the vision model.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import FeaturesConfig
from pipeline.decoding import decode, square
from pipeline.encoders import batch_size
from pipeline.halving import BatchSize
from pipeline.streams import Outlet, ahead, beside
from pipeline.tables import Shard, Table, TableFolder

if TYPE_CHECKING:
    from torch import Tensor

    from lightgen_model.autoencoder import Autoencoder
    from lightgen_model.vision_encoder import VisionEncoder

AT_ONCE = 8  # pictures a decoder takes: small ones would cost less than to be handed out
DEPTH = 3  # batches ready, and batches not yet written


@dataclass(frozen=True)
class View:
    """One table made of pictures: at which size they are seen, by what, and what is kept."""

    folder: TableFolder
    shard: str
    image_size: int  # S
    encode: "Callable[[Tensor], Tensor]"  # uint8 (B, S, S, 3), where it computes, to float16
    rows: "Callable[[pa.Table, Tensor], pa.RecordBatch]"

    def write(self, parts: "Iterator[tuple[pa.Table, Tensor]]") -> Shard:
        return self.folder.write_shard(self.shard, (self.rows(*part) for part in parts))


class Ready(NamedTuple):
    """A batch of pictures, decoded and fitted."""

    rows: pa.Table
    images: "dict[int, Tensor]"  # uint8 (B, S, S, 3) by S


# --- what is made of a picture ------------------------------------------------------------------


def latents_view(
    encoder: "Autoencoder", folder: TableFolder, shard: str, image_size: int, latents: str
) -> View:
    """Moments, not a sample: training draws a fresh latent each epoch (lightgen.md 2.3). Or means,
    half as large, where the posterior's spread is not missed or there is none."""
    if latents == "moments" and not encoder.has_posterior:
        raise ValueError(
            f"features.latents: moments, but {type(encoder.vae).__name__} has no posterior; "
            "allowed: means"
        )
    from lightgen_model.autoencoder import to_pixels

    read = encoder.encode if latents == "moments" else encoder.means

    def encode(images: "Tensor") -> "Tensor":
        return read(to_pixels(images)).half()

    def rows(pictures: pa.Table, values: "Tensor") -> pa.RecordBatch:
        return latent_rows(pictures, values, image_size, folder.table)

    return View(folder, shard, image_size, encode, rows)


def latent_rows(
    pictures: pa.Table, values: "Tensor", image_size: int, table: Table
) -> pa.RecordBatch:
    """Rows of moments or means (B, 2C or C, h, w)."""
    *ids, latents = table.schema.names
    column = table.schema.field(latents).type
    flat = values.flatten(1).cpu().numpy()
    if flat.shape[1] != column.list_size:
        raise ValueError(
            f"features.autoencoder gives {tuple(values.shape[1:])} {latents} at {image_size} px, "
            f"{flat.shape[1]} values; student.model.latent_channels and latent_stride make "
            f"{column.list_size}"
        )
    if not np.isfinite(flat).all():
        raise ValueError(f"features.autoencoder gives {latents} beyond float16 at {image_size} px")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=column)
    arrays = [pictures[name].combine_chunks() for name in ids]
    return pa.RecordBatch.from_arrays([*arrays, lists], schema=table.schema)


def alignment_view(encoder: "VisionEncoder", folder: TableFolder, shard: str, grid: int) -> View:
    """What a vision model sees at the size that makes `grid` patches a side."""
    from lightgen_model.autoencoder import to_pixels

    schema = folder.table.schema

    def encode(images: "Tensor") -> "Tensor":
        return encoder.encode(to_pixels(images)).half()

    def rows(pictures: pa.Table, values: "Tensor") -> pa.RecordBatch:
        bits = values.contiguous().cpu().numpy()  # (B, N, F)
        ends = np.arange(len(bits) + 1, dtype=np.int64) * (bits.nbytes // len(bits))
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(bits)]
        column = pa.Array.from_buffers(pa.large_binary(), len(bits), buffers)
        return pa.RecordBatch.from_arrays(
            [pictures["image_id"].combine_chunks(), column], schema=schema
        )

    return View(folder, shard, encoder.image_size(grid), encode, rows)


# --- the work -----------------------------------------------------------------------------------


def write_pictures(
    pieces: Iterator[pa.Table],
    views: Sequence[View],
    values: FeaturesConfig,
    device: str,
    progress: Callable[[int], None],
) -> list[Shard]:
    """One shard a view, of the same pictures."""
    done = 0
    with ExitStack() as stack:
        outlets = [stack.enter_context(beside(view.write, depth=DEPTH)) for view in views]
        decoders = stack.enter_context(ThreadPoolExecutor(values.workers))
        fitting = Fitting([view.image_size for view in views], decoders, device == "cuda")
        batches = ahead(in_batches(pieces, values.batch_size), fitting, threads=2, depth=DEPTH + 1)
        sizes = [batch_size(values, view.folder.table.name) for view in views]
        for ready in stack.enter_context(batches):
            for view, outlet, size in zip(views, outlets, sizes, strict=True):
                encode_ready(ready, view, outlet, size, device)
            done += len(ready.rows)
            progress(done)
        return [outlet.finish() for outlet in outlets]


def encode_ready(
    ready: Ready,
    view: View,
    outlet: "Outlet[tuple[pa.Table, Tensor], Shard]",
    size: BatchSize,
    device: str,
) -> None:
    """Hand what a view makes of a batch to its outlet, in smaller parts where memory is short."""

    def encode(images: "Tensor") -> "Tensor":
        # On a GPU neither the copy nor the kernels are waited for: the outlet's thread does.
        return view.encode(images.to(device, non_blocking=True))

    first = 0
    for part in size.through(ready.images[view.image_size], encode):
        outlet.put((ready.rows.slice(first, len(part)), part))
        first += len(part)


@dataclass(frozen=True)
class Fitting:
    """Decodes each picture of a batch once and fits it to each size; in pinned memory for a GPU.

    All decoders are at one batch, so that the first is soon ready.
    """

    image_sizes: Sequence[int]
    decoders: Executor
    pinned: bool = False

    def __call__(self, rows: pa.Table) -> Ready:
        import torch

        columns = [rows[name].to_pylist() for name in ("image", "image_id", "width")]
        pictures = list(zip(*columns, strict=True))
        parts = [pictures[n : n + AT_ONCE] for n in range(0, len(pictures), AT_ONCE)]
        fitted = [one for part in self.decoders.map(self._part, parts) for one in part]
        images = {}
        for size in self.image_sizes:
            stacked = torch.from_numpy(np.stack([each[size] for each in fitted]))
            images[size] = stacked.pin_memory() if self.pinned else stacked
        return Ready(rows.drop_columns(["image"]), images)

    def _part(
        self, pictures: Sequence[tuple[bytes | None, str, int]]
    ) -> list[dict[int, NDArray[np.uint8]]]:
        return [self._fitted(*picture) for picture in pictures]

    def _fitted(
        self, data: bytes | None, image_id: str, width: int
    ) -> dict[int, NDArray[np.uint8]]:
        return fitted_to(self.image_sizes, accepted(data, image_id, width))


def accepted(data: bytes | None, image_id: str, width: int) -> Image.Image:
    """A picture that the judge saw; ValueError where it is no longer what its row says."""
    picture, reason = decode(data or b"")
    if picture is None or picture.size != (width, width):
        found = f"{picture.width} x {picture.height} px" if picture else reason
        raise ValueError(
            f"picture {image_id} of the table images is no longer what was accepted, a picture of "
            f"{width} x {width} px ({found}); make the stage images again with force=true"
        )
    return picture


def fitted_to(image_sizes: Sequence[int], picture: Image.Image) -> dict[int, NDArray[np.uint8]]:
    """The middle square at each size (S, S, 3)."""
    return {size: np.asarray(square(picture, size)) for size in image_sizes}


def resized(data: bytes, size: int) -> NDArray[np.uint8]:
    """The middle square of an accepted picture at `size` pixels, to be shown."""
    picture, _ = decode(data)
    assert picture is not None, "accepted pictures decode"
    return np.array(square(picture, size))


def in_batches(pieces: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows, `size` at a time."""
    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)
