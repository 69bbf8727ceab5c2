import io

import numpy as np
import pytest
from PIL import Image

from pipeline.pictures import (
    BAD,
    GOOD,
    MAX_CELLS,
    MAX_SHEET_BYTES,
    Cell,
    _fitted,
    _font,
    _wrap,
    contact_sheet,
    shrink,
    side_by_side,
    steps_sheet,
)


def noise(seed: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def flat(colour: tuple[int, int, int], side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg)).convert("RGB")


def test_the_same_cells_give_the_same_bytes() -> None:
    cells = [Cell(noise(n), f"caption {n}", "a note", n % 2 == 0) for n in range(5)]
    assert contact_sheet(cells, 3) == contact_sheet(cells, 3)


@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_sheet_of_noise_stays_small(side: int) -> None:
    cells = [Cell(noise(n, side), "a red circle above a blue square", "note") for n in range(32)]
    assert len(contact_sheet(cells, 8, title="Noise")) <= MAX_SHEET_BYTES
    assert len(side_by_side("Left", cells, "Right", cells)) <= 1.5 * MAX_SHEET_BYTES
    rows = [(f"step {n}", cells[:8]) for n in range(4)]
    assert len(steps_sheet(["a prompt"] * 8, rows)) <= MAX_SHEET_BYTES


def test_pixels_of_a_small_picture_stay_squares() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    picture = Image.fromarray(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    large = np.asarray(_fitted(picture, 128))[..., 0]
    assert large.shape == (128, 128)
    assert set(np.unique(large)) == {0, 255}
    assert (large[::2, ::2] == checks).all()


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (200, 100), (1, 300), (128, 128)])
def test_every_picture_fits_its_cell(size: tuple[int, int]) -> None:
    assert max(_fitted(Image.new("RGB", size), 128).size) == 128


@pytest.mark.parametrize(("good", "colour"), [(True, GOOD), (False, BAD)])
def test_the_frame_shows_the_verdict(good: bool, colour: tuple[int, int, int]) -> None:
    sheet = opened(contact_sheet([Cell(flat((250, 250, 250)), good=good)], 1))
    frame = np.asarray(sheet)[17, 80].astype(int)
    assert np.abs(frame - colour).max() < 24


@pytest.mark.parametrize("image", [None, b"no picture at all", b"\x89PNG\r\n\x1a\ncut"])
def test_a_missing_or_broken_picture_leaves_its_place(image: bytes | None) -> None:
    whole = opened(contact_sheet([Cell(flat((0, 0, 0)), "a caption")], 1))
    assert opened(contact_sheet([Cell(image, "a caption")], 1)).size == whole.size


def test_a_picture_may_be_given_as_its_file() -> None:
    out = io.BytesIO()
    flat((222, 40, 40)).save(out, "PNG")
    assert contact_sheet([Cell(out.getvalue())]) == contact_sheet([Cell(flat((222, 40, 40)))])


def test_no_cells_make_a_sheet_that_says_so() -> None:
    assert opened(contact_sheet([], 6)).height < 100
    assert opened(side_by_side("Kept", [], "Rejected", [Cell(noise(1), "x")])).width > 600
    assert opened(steps_sheet([], [])).width > 0


def test_cells_beyond_the_most_are_left_out() -> None:
    cells = [Cell(flat((n, n, n), 8)) for n in range(MAX_CELLS + 30)]
    assert contact_sheet(cells) == contact_sheet(cells[:MAX_CELLS])


def test_captions_break_at_spaces_and_end_in_dots_where_cut() -> None:
    font = _font(15)
    lines = _wrap("a red circle above a blue square left of a green cross", font, 100, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("...")
    assert all(font.getlength(line) <= 100 for line in lines)
    assert _wrap("a red circle", font, 400, 2) == ["a red circle"]
    assert _wrap("", font, 100, 2) == []


def test_a_word_wider_than_its_cell_is_broken() -> None:
    lines = _wrap("x" * 40 + " end", _font(15), 100, 9)
    assert "".join(lines) == "x" * 40 + "end" or " ".join(lines).endswith("end")
    assert all(_font(15).getlength(line) <= 100 for line in lines)


def test_facing_rows_are_equally_high() -> None:
    long = "a photo of three yellow triangles left of a black cross on white paper"
    left = [Cell(flat((0, 0, 0)), "short", good=True)] * 2
    right = [Cell(flat((0, 0, 0)), long, "wrong count", good=False)] * 2
    sheet = np.asarray(opened(side_by_side("L", left, "R", right, columns=1)))
    dark = (sheet.sum(2) < 60).sum(1)
    # a line through a picture crosses both sides' pictures or none
    assert set(np.unique(dark[dark > 100] // 100)) == {2}


def test_shrinking_keeps_a_small_picture_and_fits_a_large_one() -> None:
    sheet = contact_sheet([Cell(noise(n)) for n in range(24)])
    assert shrink(sheet, len(sheet)) is sheet
    assert len(shrink(sheet, 20_000)) <= 20_000
