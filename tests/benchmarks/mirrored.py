"""Other batches than a run has: mirrored pictures, or captions of some tasks alone.

Flips as published: half the pictures are mirrored left to right, their captions are not changed.
In:    a finished run's tables of features and images; its autoencoder.
Out:   training batches that take each picture as it is or mirrored, with equal chance. The latent
       of a mirrored picture is encoded from it, not mirrored itself (lightgen.md 2.3).
Rerun: mirrored latents are kept beside the benchmark's trainings and read again.

The product has no value for flips: a mirrored picture makes "left of" a lie.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightgen_model.autoencoder import to_pixels
from pipeline.batches import FeatureBatches, Rows, TableRows
from pipeline.config import RunConfig
from pipeline.decoding import square
from pipeline.encoded_pictures import accepted
from pipeline.encoders import autoencoder
from pipeline.orders import Order
from pipeline.shapes.grammar import parse
from pipeline.tables import Manifest, read

AT_ONCE = 64  # pictures
CHANCE = 0.5


@dataclass(frozen=True)
class MirroredBatches(FeatureBatches):
    """`mirrored` holds the moments of the same rows, of pictures seen in a mirror."""

    mirrored: TableRows | None = None

    @staticmethod
    def of(batches: FeatureBatches, mirrored: TableRows) -> "MirroredBatches":
        same = {field.name: getattr(batches, field.name) for field in fields(FeatureBatches)}
        return MirroredBatches(**same, mirrored=mirrored)

    def _latents(self, rows: Rows, generators: Iterable[torch.Generator]) -> Tensor:
        assert self.mirrored is not None
        generators = list(generators)
        as_drawn = super()._latents(rows, generators)
        # What a row draws is the same with flips and without, but for this last number.
        chance = torch.stack([torch.rand((), generator=each) for each in generators])
        turned = FeatureBatches(
            self.mirrored,
            *(getattr(self, field.name) for field in fields(FeatureBatches)[1:]),
        )._latents(rows, generators)
        return torch.where((chance < CHANCE)[:, None, None, None], turned, as_drawn)


def mirrored_rows(config: RunConfig, features: Manifest, images: Manifest, out: Path) -> TableRows:
    """Moments (2c h w) of the pictures of `features_<px>` in its order, mirrored."""
    assert config.student
    assert config.features
    size = config.student.phases[0].image_size
    snapshot = features.snapshots[f"features_{size}"]
    place = out / f"mirrored-{size}-{snapshot.content[:16]}.npy"
    if not place.is_file():
        ids = read(config.root, snapshot, ["image_id"])["image_id"].to_pylist()
        table = read(config.root, images.snapshots["images"], ["image_id", "width", "image"])
        out.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(f".{os.getpid()}.npy")
        np.save(part, _encoded(config, table, ids, size))
        part.rename(place)
    flat = np.load(place)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return TableRows(pa.table({"moments": lists}))


def _encoded(
    config: RunConfig, table: pa.Table, ids: Sequence[str], size: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    assert config.features
    encoder = autoencoder(config.features, "cpu")
    place = {name: row for row, name in enumerate(table["image_id"].to_pylist())}
    parts = []
    for first in range(0, len(ids), AT_ONCE):
        rows = table.take(pa.array([place[name] for name in ids[first : first + AT_ONCE]]))
        columns = zip(*(rows[n].to_pylist() for n in ("image", "image_id", "width")), strict=True)
        pictures = [np.asarray(square(accepted(*one), size))[:, ::-1] for one in columns]
        pixels = to_pixels(torch.from_numpy(np.stack(pictures)))
        parts.append(encoder.encode(pixels).half().flatten(1).numpy())
    return np.concatenate(parts)


def rows_of(
    config: RunConfig, upstream: dict[str, Manifest], tasks: Sequence[str]
) -> NDArray[np.int64]:
    """Rows of the first phase's features whose captions are of these tasks."""
    assert config.student is not None
    captions = read(
        config.root, upstream["captions"].snapshots["captions"], ["caption_id", "caption"]
    )
    specs = zip(captions["caption_id"].to_pylist(), captions["caption"].to_pylist(), strict=True)
    wanted = {name for name, text in specs if (spec := parse(text)) and spec.task in tasks}
    snapshot = upstream["features"].snapshots[f"features_{config.student.phases[0].image_size}"]
    names = read(config.root, snapshot, ["caption_id"])["caption_id"].to_pylist()
    return np.array([row for row, name in enumerate(names) if name in wanted], np.int64)


def batches_of(batches: FeatureBatches, rows: NDArray[np.int64]) -> FeatureBatches:
    """The same of some rows alone."""
    lengths = batches.text.lengths[batches.text_rows[rows]]
    order = Order(len(rows), batches.batch_size, batches.order.seed, lengths, batches.order.buckets)
    return replace(batches, chosen=rows, num_rows=len(rows), order=order)
