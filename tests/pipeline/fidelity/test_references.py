"""Folders of pictures: what belongs to them, their captions, and features that are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.fidelity.distances import Features
from pipeline.fidelity.references import PictureSet, features_of


class Brightness:
    """Features that are hand-made: the mean of each channel."""

    resize = "none"

    def __init__(self, name: str = "brightness") -> None:
        self.name, self.seen = name, 0

    def features(self, images: list[Image.Image]) -> Features:
        self.seen += len(images)
        return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        place = tmp_path / "set" / f"{number:05d}" / "samples"
        place.mkdir(parents=True)
        Image.new("RGB", (30, 20), (50 * number, 0, 10)).save(place / "0000.png")
        Image.new("RGB", (99, 20)).save(place.parent / "grid.png")
        row = {"prompt": f"picture {number}"}
        (place.parent / "metadata.jsonl").write_text(json.dumps(row))
    (tmp_path / "set" / ".hidden").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "set" / ".hidden" / "x.png")
    return tmp_path / "set"


def test_every_picture_but_the_grids_is_in_the_set_in_order(folder: Path) -> None:
    pictures = PictureSet.of(folder)
    assert [path.relative_to(folder).as_posix() for path in pictures.files] == [
        f"{number:05d}/samples/0000.png" for number in range(5)
    ]
    assert len(PictureSet.of(folder, most=3).files) == 3
    with pytest.raises(ValueError, match="5 pictures, 9 are needed"):
        PictureSet.of(folder, most=9)
    with pytest.raises(ValueError, match="no such folder"):
        PictureSet.of(folder / "none")


def test_a_size_cuts_the_middle_square_and_is_part_of_the_fingerprint(folder: Path) -> None:
    plain, small = PictureSet.of(folder), PictureSet.of(folder, 16)
    assert {image.size for images in small.images() for image in images} == {(16, 16)}
    assert {image.size for images in plain.images() for image in images} == {(30, 20)}
    assert plain.fingerprint() != small.fingerprint()
    assert (plain.preparation, small.preparation) == ("as it is", "middle square at 16 px")


def test_features_are_kept_until_a_file_or_the_extractor_changes(
    folder: Path, tmp_path: Path
) -> None:
    extractor, cache = Brightness(), tmp_path / "cache"
    first, fingerprint = features_of(PictureSet.of(folder), extractor, cache)
    again, same = features_of(PictureSet.of(folder), extractor, cache)
    assert np.array_equal(first, again)
    assert (same, extractor.seen) == (fingerprint, 5)
    assert first[:, 0].tolist() == [0, 50, 100, 150, 200]
    features_of(PictureSet.of(folder), Brightness("other"), cache)
    Image.new("RGB", (30, 20)).save(folder / "00003" / "samples" / "0000.png")
    changed, other = features_of(PictureSet.of(folder), extractor, cache)
    assert other != fingerprint
    assert changed[3, 0] == 0
    assert sorted(path.suffix for path in cache.iterdir()) == [".npy"] * 3


def test_captions_are_genevals_or_of_a_text_beside_the_picture(folder: Path) -> None:
    pictures = PictureSet.of(folder)
    assert pictures.caption(pictures.files[2]) == "picture 2"
    (folder / "00002" / "samples" / "0000.txt").write_text("another caption\n")
    assert pictures.caption(pictures.files[2]) == "another caption"
    Image.new("RGB", (3, 3)).save(folder / "bare.png")
    with pytest.raises(ValueError, match=r"bare\.png has no caption: expected bare\.txt beside"):
        pictures.caption(folder / "bare.png")
