"""Images by the teacher of shapes: one row an order, each picture by itself, growth adds only."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import images, verdicts
from pipeline.config import PictureFormat
from pipeline.images import Order, draw_images, orders_of
from pipeline.tables import TableDamaged, read
from pipeline.teachers import Drawing, TeacherFacts


def rows_of(config, upstream, columns=None):
    return read(config.root, upstream["images"].snapshots["images"], columns)


def test_every_kept_caption_is_drawn_at_every_size_up_to_its_limit(debug_run, walk):
    config = debug_run()
    upstream = walk(config, "images")
    captions = read(config.root, upstream["captions"].snapshots["captions"])
    kept = captions.filter(captions["keep"])["caption_id"].to_pylist()
    table = rows_of(config, upstream).to_pylist()
    assert [row["caption_id"] for row in table] == kept + kept[:10]
    assert [row["width"] for row in table] == [64] * len(kept) + [128] * 10
    assert all(Image.open(io.BytesIO(row["image"])).size[0] == row["width"] for row in table)
    assert len({row["image_id"] for row in table}) == len(table)
    assert {row["licence"] for row in table} == {"MIT"}


def test_a_picture_does_not_depend_on_its_shard_or_its_neighbours(debug_run, walk, tmp_path):
    config = debug_run()
    other = debug_run({"captions.rows_per_shard": 7}, tmp_path / "other")
    one, two = (rows_of(c, walk(c, "images")) for c in (config, other))
    assert one.equals(two)


def test_more_seeds_and_sizes_draw_only_what_is_new(debug_run, walk, make):
    config = debug_run()
    upstream = walk(config, "images")
    assert images.find(config, upstream) == upstream["images"]
    assert make(images, config, upstream) == (upstream["images"], [])
    larger = debug_run({"images.max_captions": {128: 20}})
    assert images.find(larger, upstream) is None
    manifest, made = make(images, larger, upstream)
    old, new = (m.snapshots["images"] for m in (upstream["images"], manifest))
    assert old.table == new.table
    assert len(made) == 1  # the one shard at 128 px
    two_seeds, _ = make(images, debug_run({"images.seeds_per_caption": 2}), upstream)
    table = read(config.root, two_seeds.snapshots["images"], ["caption_id", "seed", "width"])
    small = table.filter(np.equal(table["width"].to_numpy(), 64)).to_pylist()
    assert small[0]["caption_id"] == small[1]["caption_id"]
    assert small[0]["seed"] != small[1]["seed"]


def test_a_hundred_new_captions_cost_a_hundred_pictures(debug_run, walk, make):
    values = {"images.image_sizes": [64], "features.image_sizes": [64]}
    before = walk(debug_run({**values, "captions.sources.0.num_captions": 60}), "images")
    config = debug_run({**values, "captions.sources.0.num_captions": 160})
    upstream = walk(config, "captions")
    drawn: list[int] = []
    for work in images.plan(config, upstream):
        done: list[int] = []
        images.make(config, upstream, work, done.append)
        drawn += done[-1:]
    rows = upstream["captions"].snapshots["captions"]
    captions = read(config.root, rows, ["keep"])["keep"].to_pylist()
    assert sum(drawn) == sum(captions) - before["images"].snapshots["images"].rows
    assert 0 < sum(drawn) <= 100


def test_a_damaged_file_is_named_by_its_reader_and_its_stage_makes_it_again(debug_run, walk, make):
    config = debug_run()
    upstream = walk(config, "images")
    victim = min(Path(config.root).glob("tables/images-*/data/*.lance"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(TableDamaged, match=rf"{victim} .*force=true"):
        make(verdicts, config, upstream)
    again, made = make(images, config, upstream)
    assert (again, len(made)) == (upstream["images"], 1)
    assert victim.read_bytes() == whole
    make(verdicts, config, upstream)


def test_another_teacher_is_another_table(debug_run, walk):
    names = {
        walk(debug_run({"images.teacher.error_rate": rate}), "images")["images"]
        .snapshots["images"]
        .table
        for rate in (0.1, 0.3)
    }
    assert len(names) == 2


def test_a_teacher_is_loaded_once_for_all_shards_and_then_let_go(
    debug_run, walk, make, monkeypatch
):
    config = debug_run()
    upstream = walk(config, "captions")
    loaded: list[object] = []
    images._teacher.cache_clear()  # whatever another test of this process left unfinished
    build = images.teachers.build
    monkeypatch.setattr(images.teachers, "build", lambda c: loaded.append(c) or build(c))
    _, made = make(images, config, upstream)
    assert len(made) > 1
    assert loaded == [config.images.teacher]
    assert images._teacher.cache_info().currsize == 0  # the encoders come next


class MoodyTeacher:
    facts = TeacherFacts("moody", "1", "MIT", 1, 0.0)

    def draw(self, captions, seeds, image_size):
        sizes = [image_size, 48]
        return [Drawing(None, "refused")] + [
            Drawing(Image.new("RGB", (size, size))) for size in sizes
        ]


def test_what_was_not_drawn_is_a_row_with_its_reason():
    orders = [Order(f"id{n}", f"caption {n}", n) for n in range(3)]
    rows = draw_images(MoodyTeacher(), orders, 64, "maker").to_pylist()
    assert [row["reason"] for row in rows] == ["refused", "", "drawn at another size"]
    assert [row["image"] is None for row in rows] == [True, False, True]
    assert [row["width"] for row in rows] == [64] * 3


def test_captions_outside_the_grammar_are_counted_as_not_drawn(debug_run, walk, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("a red circle\na photograph of a llama\n")
    source = {"kind": "files", "name": "own", "paths": [str(path)], "format": "text"}
    config = debug_run({"captions.sources": [{**source, "licence": "MIT"}]})
    upstream = walk(config, "images")
    seen = images.describe(config, upstream, upstream["images"])
    assert (seen.rows_in, seen.kept, seen.rejected) == (4, 2, 2)
    assert seen.reasons == {"not in the grammar": 2}
    assert seen.pictures[0].jpeg[:2] == b"\xff\xd8"
    assert seen.facts["licence"] == "MIT"


def test_seeds_follow_caption_number_and_run(debug_run):
    values = debug_run({"images.seeds_per_caption": 2}).images
    other = debug_run({"images.seeds_per_caption": 2, "images.seed": 1}).images
    orders = orders_of([("a", "one"), ("b", "two")], values)
    seeds = {order.seed for order in orders} | {
        order.seed for order in orders_of([("a", "one"), ("b", "two")], other)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert orders[2:] == orders_of([("b", "two")], values)


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_a_picture_is_stored_as_the_run_says(debug_run, walk, make, kind, tmp_path):
    values = {"images.image_sizes": [64], "features.image_sizes": [64]}
    config = debug_run(
        {**values, "images.picture": {"format": kind, "quality": 90}}, tmp_path / "r"
    )
    upstream = walk(config, "captions")
    upstream["images"], _ = make(images, config, upstream)
    files = rows_of(config, upstream, ["image"])["image"].to_pylist()
    pictures = [Image.open(io.BytesIO(data)) for data in files]
    assert {picture.format for picture in pictures} == {kind.upper()}
    plain = walk(debug_run(values), "images")
    drawn = [
        Image.open(io.BytesIO(d)) for d in rows_of(debug_run(values), plain)["image"].to_pylist()
    ]
    for one, other in zip(pictures, drawn, strict=True):
        difference = np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)
        assert np.abs(difference).mean() < (0.001 if kind == "png" else 4)


def test_metadata_of_a_picture_goes_no_further():
    image = Image.new("RGB", (8, 8))
    image.info |= {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0", "comment": b"who", "icc_profile": b"x"}
    for kind in ("png", "webp", "jpeg"):
        picture = PictureFormat(format=kind)
        assert images.encoded(image, picture) == images.encoded(Image.new("RGB", (8, 8)), picture)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_picture_becomes_a_png_that_reads_back(mode):
    data = images.png(Image.new(mode, (8, 8)))
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert data == images.png(Image.new(mode, (8, 8)))
