"""GenEval's folder: read, written, and named where it is not as it must be."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.geneval.folders import check_pictures, open_picture, read_folder, write_folder
from pipeline.geneval.prompts import Request, parse
from tests.pipeline.geneval.conftest import noise


def requests(number: int = 3) -> list[Request]:
    return [
        parse(
            {
                "tag": "counting",
                "include": [{"class": "clock", "count": count}],
                "exclude": [{"class": "clock", "count": count + 1}],
                "prompt": f"a photo of {count} clocks",
            },
            "row",
        )
        for count in range(1, number + 1)
    ]


def png(seed: int = 0) -> bytes:
    out = io.BytesIO()
    noise(20, 16, seed).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prompts = [(n, request, [png(n), png(n + 10)]) for n, request in enumerate(requests())]
    assert write_folder(tmp_path / "pictures", prompts) == 3
    return tmp_path / "pictures"


def test_what_is_written_is_read_back_in_order(folder: Path) -> None:
    samples = read_folder(folder, requests=requests(), images_per_prompt=2)
    assert [(s.prompt_index, s.image_index) for s in samples] == [
        (n, m) for n in range(3) for m in range(2)
    ]
    assert [sample.request for sample in samples[::2]] == requests()
    assert samples[3].path == folder / "00001" / "samples" / "0001.png"
    assert samples[3].path.read_bytes() == png(11)
    assert json.loads((folder / "00001" / "metadata.jsonl").read_text()) == requests()[1].row
    assert Image.open(folder / "00001" / "grid.png").size == (2 * 20 + 6, 16 + 4)


def test_a_second_writing_adds_what_is_missing_and_no_more(folder: Path) -> None:
    before = (folder / "00000" / "grid.png").stat().st_mtime_ns
    prompts = [(n, request, [png(n), png(n + 10)]) for n, request in enumerate(requests(4))]
    (folder / ".00003.partial").mkdir()  # of a writer that was killed
    assert write_folder(folder, prompts) == 1
    assert (folder / "00000" / "grid.png").stat().st_mtime_ns == before
    assert len(read_folder(folder)) == 8
    with pytest.raises(ValueError, match="00000 is of another prompt"):
        write_folder(folder, [(0, requests()[1], [png(), png()])])


def test_other_files_beside_the_prompts_are_passed_over(folder: Path) -> None:
    (folder / "results.jsonl").touch()
    (folder / "notes").mkdir()
    (folder / "00000" / "samples" / ".DS_Store").touch()
    assert len(read_folder(folder)) == 6


def remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


FAULTS = {
    r"00001/metadata\.jsonl is missing": lambda f: remove(f, "00001/metadata.jsonl"),
    r"00002/samples has 1 pictures, expected 2": lambda f: remove(f, "00002/samples/0001.png"),
    "samples has no pictures": lambda f: remove(
        f, "00000/samples/0000.png", "00000/samples/0001.png"
    ),
    r"samples/extra\.png is no picture's place": lambda f: (
        f / "00000/samples/extra.png"
    ).write_bytes(png()),
    r"0002\.jpg is no picture's place": lambda f: (f / "00000/samples/0002.jpg").write_bytes(png()),
    r"samples/1\.png and 0001\.png have the same number": lambda f: (
        f / "00000/samples/1.png"
    ).write_bytes(png()),
    "1 of 3 prompts are missing, the first .*00001": lambda f: (f / "00001").rename(f / "x"),
    "1 folders are of no prompt, the first .*00007": lambda f: write_folder(
        f, [(7, requests()[0], [png(), png()])]
    ),
    "is of 'a photo of 2 clocks', prompt 0 is 'a photo of 1 clocks'": lambda f: (
        f / "00000/metadata.jsonl"
    ).write_text(json.dumps(requests()[1].row)),
    r"metadata\.jsonl: not JSON": lambda f: (f / "00000/metadata.jsonl").write_text("{"),
    "00001/samples is missing": lambda f: (f / "00001/samples").rename(f / "00001/x"),
    "0 and 00000 are of the same prompt|00000 and 0 are": lambda f: (f / "0").mkdir(),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_folder_with_missing_or_extra_files_is_named(folder: Path, sentence: str) -> None:
    FAULTS[sentence](folder)
    with pytest.raises(ValueError, match=sentence):
        read_folder(folder, requests=requests())


def test_every_fault_is_told_at_once_and_the_count_of_the_rest(folder: Path) -> None:
    for number in range(20):
        (folder / "00000" / "samples" / f"x{number}.png").touch()
    with pytest.raises(ValueError, match=r"x0\.png[\s\S]*and 8 more"):
        read_folder(folder)


def test_more_pictures_than_asked_are_wrong_too(folder: Path) -> None:
    with pytest.raises(ValueError, match="00000/samples has 2 pictures, expected 4"):
        read_folder(folder, images_per_prompt=4)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no prompts in it; expected"):
        read_folder(tmp_path)


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, :15] = (255, 0, 0)  # red on the left
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: left comes to the top
    picture.save(tmp_path / "turned.png", exif=exif)
    image = open_picture(tmp_path / "turned.png")
    assert image.size == (20, 30)
    assert image.getpixel((10, 5)) == (255, 0, 0)
    assert image.getpixel((10, 25)) == (0, 0, 0)


def test_transparent_grey_and_palette_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    for mode in ("RGBA", "L", "P", "LA"):
        noise().convert("RGB").convert(mode).save(tmp_path / "picture.png")
        assert open_picture(tmp_path / "picture.png").mode == "RGB"


def test_unreadable_pictures_are_named_before_any_work(folder: Path) -> None:
    samples = read_folder(folder)
    check_pictures(samples)
    samples[0].path.write_bytes(png()[:200])  # cut short
    samples[3].path.write_text("no picture")
    Image.new("I;16", (8, 8)).save(samples[5].path)
    with pytest.raises(ValueError, match="3 of 6 pictures cannot be read") as told:
        check_pictures(samples)
    for part in ("00000/samples/0000.png is no readable", "0001.png is no readable", "mode I;16"):
        assert part in str(told.value)
