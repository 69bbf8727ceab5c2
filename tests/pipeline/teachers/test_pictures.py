"""A set of pictures that is there already, with everything that such sets have in them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import images
from pipeline.config import PicturesTeacher
from pipeline.tables import read
from pipeline.teachers import build, identity

RNG = np.random.default_rng(0)


def picture(side: int = 96, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (side, side + 10, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def sample(name: str, caption: str, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    text = json.dumps({"prompt": caption}).encode()
    return [member(f"{name}.jpg", data), member(f"{name}.json", text)]


def link(name: str, target: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    info = tarfile.TarInfo(f"{name}.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return [(info, b""), member(f"{name}.json", json.dumps({"prompt": "a link"}).encode())]


def write_tar(path: Path, *samples: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, data in (each for one in samples for each in one):
            tar.addfile(info, io.BytesIO(data))
    return path


def teacher(*paths: Path, **values) -> PicturesTeacher:
    given = {"name": "set", "licence": "MIT", "format": "webdataset", **values}
    return PicturesTeacher(kind="pictures", paths=tuple(map(str, paths)), **given)


def test_each_caption_finds_its_own_picture(tmp_path: Path) -> None:
    cat, dog = picture(64, "JPEG"), picture(200)
    one = write_tar(tmp_path / "0.tar", sample("a/0", "A  cat\n", cat), sample("a/1", "x", b"?"))
    two = write_tar(tmp_path / "1.tar", sample("0", "a dog", dog), sample("1", "A cat", dog))
    found = build(teacher(one, two)).draw(["a dog", "A cat", "a pig", "x"], range(4), 64)
    reasons = ["", "", "no picture in the set", "does not decode"]
    assert [drawing.reason for drawing in found] == reasons
    assert [drawing.image and drawing.image.size for drawing in found[:2]] == [(64, 64)] * 2
    middle = np.asarray(Image.open(io.BytesIO(cat)))[:, 5:69]
    assert np.array_equal(np.asarray(found[1].image), middle)  # the first of two, its middle square


def test_odd_members_lead_nowhere_and_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture())
    (sub := tmp_path / "sub").mkdir()
    tar = write_tar(
        sub / "0.tar",
        sample("../../outside", "outside", picture()),
        link("link", "../secret.jpg"),
        [member("alone.jpg", picture())],
        [member("bad.json", b"{half"), member("bad.jpg", picture())],
        [member("list.json", b"[1]"), member("list.jpg", picture())],
        sample("small", "small", picture(32)),
        sample("black", "black", black()),
    )
    before = sorted(tmp_path.rglob("*"))
    captions = ["outside", "a link", "small", "black"]
    found = build(teacher(tar)).draw(captions, range(4), 64)
    assert [drawing.reason for drawing in found] == [
        "",
        "no picture in the set",
        "smaller than asked for",
        "black picture",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.teachers.pictures.MAX_PICTURE_BYTES", 1000)
    tar = write_tar(tmp_path / "0.tar", sample("0", "a cat", picture()))
    (found,) = build(teacher(tar)).draw(["a cat"], [0], 64)
    assert found.reason == "no picture in the set"


def black() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


def test_a_tar_that_is_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", sample("0", "a cat", picture()), sample("1", "x", b"?"))
    data = whole.read_bytes()
    for end in (len(data) // 2, 100_000, 35_000):
        whole.write_bytes(data[:end])
        (drawing,) = build(teacher(whole)).draw(["a cat"], [0], 64)
        assert drawing.reason in ("", "does not decode", "no picture in the set")
    whole.write_bytes(data[: -len(data) // 8])
    assert build(teacher(whole)).draw(["a cat"], [0], 64)[0].image is not None


def test_a_compressed_tar_must_be_unpacked_and_nothing_is_no_set(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "0.tar", sample("0", "a cat", picture()), mode="w:gz")
    with pytest.raises(ValueError, match=r"0.tar is no plain tar .* must be unpacked first"):
        build(teacher(packed))
    with pytest.raises(ValueError, match="no file matches"):
        build(teacher(tmp_path / "*.none"))


@pytest.mark.parametrize("nested", [True, False])
def test_parquet_gives_rows_of_bytes_or_of_structs(tmp_path: Path, nested: bool) -> None:
    data = [picture(), None, b"broken", picture(70)]
    cells = [{"bytes": each, "path": "x"} for each in data] if nested else data
    table = pa.table({"text": ["a", "b", "c", None], "image": cells})
    path = tmp_path / "0.parquet"
    pq.write_table(table, path, row_group_size=2)
    config = teacher(path, format="parquet", image="image", column="text")
    found = build(config).draw(["c", "a", "b"], range(3), 64)
    assert [drawing.reason for drawing in found] == ["does not decode", "", "does not decode"]
    with pytest.raises(ValueError, match=r"no column 'jpg', it has \['text', 'image'\]"):
        build(teacher(path, format="parquet", column="text"))
    (tmp_path / "1.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1.parquet is no Parquet file"):
        build(teacher(tmp_path / "1.parquet", format="parquet"))


def test_a_grown_set_is_another_table_unless_it_is_pinned(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", sample("0", "a cat", picture()))
    before, pinned = identity(teacher(tar)), identity(teacher(tar, revision="abc"))
    write_tar(tar, sample("0", "a cat", picture()), sample("1", "a dog", picture()))
    assert identity(teacher(tar)) != before
    assert identity(teacher(tar, revision="abc")) == pinned


def test_a_run_reads_its_pictures_from_a_set(debug_run, walk, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", sample("0", "a cat", picture()))
    (tmp_path / "captions.txt").write_text("a cat\na dog\n")
    source = {"kind": "files", "name": "own", "format": "text", "licence": "MIT"}
    values = {
        "captions.sources": [{**source, "paths": [str(tmp_path / "captions.txt")]}],
        "images": {"teacher": teacher(tar).model_dump(), "image_sizes": [64]},
        "features.image_sizes": [64],
    }
    config = debug_run(values)
    upstream = walk(config, "images")
    rows = read(config.root, upstream["images"].snapshots["images"]).to_pylist()
    assert [row["reason"] for row in rows] == ["", "no picture in the set"]
    assert images.describe(config, upstream, upstream["images"]).rejected == 1
    with pytest.raises(ValueError, match="seeds_per_caption: 2, but a set of pictures has no"):
        debug_run({**values, "images.seeds_per_caption": 2})
