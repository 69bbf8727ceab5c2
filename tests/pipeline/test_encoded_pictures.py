"""Pictures on their way to the tables: fitted, checked, halved where memory is short."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.encoded_pictures import Fitting, View, accepted, in_batches, resized, write_pictures
from pipeline.encoders import batch_size
from pipeline.feature_tables import features_table
from pipeline.images import png
from pipeline.tables import TableFolder


def test_large_pictures_are_halved_and_oblong_ones_cut():
    stripes = np.zeros((100, 260, 3), np.uint8)
    stripes[:, 80:180] = 200
    picture = resized(png(Image.fromarray(stripes)), 25)
    assert picture.shape == (25, 25, 3)
    assert (picture == 200).all()
    same = Image.effect_noise((64, 64), 50).convert("RGB")
    assert np.array_equal(resized(png(same), 64), np.asarray(same))


def pictures(count: int, size: int = 16) -> pa.Table:
    """Rows of the table of images: each picture is one grey level, its number."""
    grey = [Image.new("RGB", (size, size), (number,) * 3) for number in range(count)]
    names = [f"picture {number}" for number in range(count)]
    columns = {"image_id": names, "caption_id": names, "width": [size] * count}
    return pa.table({**columns, "image": pa.array(map(png, grey), pa.large_binary())})


class Levels:
    """Stands for an encoder: a latent of one cell, the mean level; memory for so many pictures."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        levels = images.float().mean((1, 2, 3))
        return torch.stack([levels, levels], 1).round().half()


def view_of(tmp_path, encode: Levels, size: int) -> View:
    folder = TableFolder(tmp_path, features_table(size, 1, size), size)

    def rows(table: pa.Table, values: torch.Tensor) -> pa.RecordBatch:
        columns = [table["image_id"].to_pylist(), table["caption_id"].to_pylist(), values.tolist()]
        return pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, folder.table.schema, strict=True)],
            schema=folder.table.schema,
        )

    return View(folder, "shard", size, encode, rows)


def test_out_of_memory_halves_the_batch_and_loses_nothing(debug_run, tmp_path, caplog) -> None:
    values = debug_run({"features.batch_size": 8, "features.workers": 2}).features
    large, small, seen = Levels(2), Levels(8), []
    views = [view_of(tmp_path, large, 16), view_of(tmp_path, small, 8)]
    pieces = iter([pictures(20).slice(0, 13), pictures(20).slice(13)])
    shards = write_pictures(pieces, views, values, "cpu", seen.append)
    for view, shard in zip(views, shards, strict=True):
        rows = view.folder.read_shard(shard).to_pylist()
        assert [row["image_id"] for row in rows] == [f"picture {n}" for n in range(20)]
        assert [row["moments"] for row in rows] == [[n, n] for n in range(20)]
    assert large.sizes == [8, 4, *[2] * 10]
    assert small.sizes == [8, 8, 4]  # the other table keeps its batches
    assert seen == [8, 16, 20]
    assert "features.batch_size for features_16 is now 2" in caplog.text
    assert batch_size(values, "features_16").value == 2


def test_a_picture_that_fits_nowhere_is_a_sentence(debug_run, tmp_path) -> None:
    values = debug_run({"features.batch_size": 3}).features
    with pytest.raises(ValueError, match=r"features.autoencoder: .* at 16 px does not fit"):
        write_pictures(
            iter([pictures(3)]), [view_of(tmp_path, Levels(0), 16)], values, "cpu", lambda n: None
        )
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("shard.lance"))


def test_a_picture_is_fitted_to_each_size_once() -> None:
    with ThreadPoolExecutor(2) as decoders:
        ready = Fitting([16, 4], decoders)(pictures(3))
    assert {size: tuple(images.shape) for size, images in ready.images.items()} == {
        16: (3, 16, 16, 3),
        4: (3, 4, 4, 3),
    }
    assert ready.images[4][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert ready.rows.column_names == ["image_id", "caption_id", "width"]


def test_a_picture_that_is_not_what_its_row_says_is_named() -> None:
    whole = png(Image.new("RGB", (16, 16)))
    assert accepted(whole, "a", 16).size == (16, 16)
    for data, width, found in (
        (whole[:40], 16, "does not decode"),
        (None, 16, "does not decode"),
        (whole, 32, "16 x 16 px"),
    ):
        with pytest.raises(ValueError, match=f"picture some of the table images .*{found}"):
            accepted(data, "some", width)


def test_pieces_are_cut_anew_without_losing_a_row() -> None:
    whole = pictures(15)
    pieces = [whole.slice(0, 5), whole.slice(5, 0), whole.slice(5, 9), whole.slice(14)]
    batches = list(in_batches(iter(pieces), 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    assert pa.concat_tables(batches).equals(whole)
