"""Whatever bytes come, a picture is RGB and upright or has a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.decoding import ANIMATED, BROKEN, TOO_LARGE, decode, square

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def file_of(image: Image.Image, kind: str, **values) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **values)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG that says 40,000 x 40,000 and holds next to nothing."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    assert decode(bomb()) == (None, TOO_LARGE)
    assert decode(file_of(Image.fromarray(PIXELS), "PNG"), max_pixels=700) == (None, TOO_LARGE)


def test_an_animation_is_refused_and_a_phones_second_picture_is_not() -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = file_of(frames[0], kind, save_all=True, append_images=frames[1:])
        assert decode(data) == (None, ANIMATED)
    phone = file_of(frames[0], "MPO", save_all=True, append_images=frames[1:])
    picture, reason = decode(phone)
    assert reason == ""
    assert picture is not None
    assert np.abs(np.asarray(picture, int) - PIXELS).mean() < 60


def test_a_picture_lying_on_its_side_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture, _ = decode(file_of(Image.fromarray(PIXELS), "PNG", exif=exif))
    assert picture is not None
    assert np.array_equal(np.asarray(picture), np.rot90(PIXELS, -1))


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    palette = Image.new("P", (8, 8))
    palette.putpalette([255, 0, 0] * 256)
    for data, colour in (
        (file_of(clear, "PNG"), (255, 255, 255)),
        (file_of(half, "WEBP", lossless=True), (255, 127, 127)),
        (file_of(palette, "PNG", transparency=0), (255, 255, 255)),
        (file_of(Image.new("LA", (8, 8), (0, 0)), "PNG"), (255, 255, 255)),
    ):
        picture, _ = decode(data)
        assert picture is not None
        assert picture.mode == "RGB"
        assert picture.getpixel((3, 3)) == colour


def test_printers_and_deep_pictures_keep_their_look() -> None:
    plain = Image.fromarray(PIXELS)
    printed, _ = decode(file_of(plain.convert("CMYK"), "JPEG", quality=95))
    assert printed is not None
    shown = np.asarray(plain.convert("CMYK").convert("RGB"), int)
    assert np.abs(np.asarray(printed, int) - shown).mean() < 30
    deep = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    picture, _ = decode(file_of(deep, "PNG"))
    assert picture is not None
    assert picture.getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_picture_that_is_cut_off_does_not_decode(kind: str) -> None:
    data = file_of(Image.fromarray(PIXELS), kind)
    assert decode(data)[1] == ""
    assert decode(data[: len(data) // 2]) == (None, BROKEN)
    assert decode(b"") == (None, BROKEN)


@pytest.mark.parametrize("kind", ["EPS", "ICNS", "PDF"])
def test_a_format_whose_reader_does_more_than_read_is_no_picture(kind: str) -> None:
    assert decode(file_of(Image.fromarray(PIXELS), kind)) == (None, BROKEN)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "MPO", "AVIF"]), st.data())
def test_damaged_bytes_are_a_picture_or_a_reason(kind: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    values = {} if kind == "GIF" else {"exif": exif}
    whole = bytearray(file_of(Image.fromarray(PIXELS), kind, **values))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    picture, reason = decode(bytes(whole))
    assert (picture is None) == bool(reason)
    assert picture is None or picture.mode == "RGB"


def test_the_middle_square_is_taken() -> None:
    stripes = np.zeros((32, 96, 3), np.uint8)
    stripes[:, 32:64] = 200
    assert np.asarray(square(Image.fromarray(stripes), 8)).min() == 200
    assert square(Image.fromarray(stripes), 40).size == (40, 40)
    assert np.array_equal(np.asarray(square(Image.fromarray(PIXELS), 24)), PIXELS[:, 4:28])


def adm(image: Image.Image, size: int) -> np.ndarray:
    """What arXiv 2105.05233 describes, in its own order: reduced whole, then cut."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    whole = (round(image.width * scale), round(image.height * scale))
    levels = np.asarray(image.resize(whole, Image.Resampling.BICUBIC), int)
    top, left = (levels.shape[0] - size) // 2, (levels.shape[1] - size) // 2
    return levels[top : top + size, left : left + size]


@pytest.mark.parametrize(("side", "size"), [(512, 256), (512, 64), (300, 64), (129, 64), (64, 64)])
def test_square_pictures_are_made_smaller_as_adm_does(side: int, size: int) -> None:
    image = Image.effect_noise((side, side), 80).convert("RGB")
    assert np.array_equal(np.asarray(square(image, size)), adm(image, size))


def test_halving_is_the_mean_of_four_pixels() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (512, 512, 3))
    means = levels.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    halved = np.asarray(square(Image.fromarray(levels.astype(np.uint8)), 256))
    assert np.abs(halved - means).max() <= 1  # rounded after each direction


def test_oblong_pictures_are_near_what_adm_makes_of_them() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    image = coarse.resize((700, 333), Image.Resampling.BICUBIC)
    off = np.abs(np.asarray(square(image, 128), int) - adm(image, 128))
    assert off.mean() < 2.5  # the cut is a fraction of a pixel beside
