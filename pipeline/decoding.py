"""Pictures from bytes that anyone may have made: RGB and upright, or the reason why not.

In:    an encoded picture.
Out:   it in RGB, turned as its EXIF says, transparency on white; None with a reason where it is no
       picture, broken, animated, or larger than anyone should decode.
"""

import io
import struct
from functools import cache

from PIL import Image, ImageOps

BROKEN, ANIMATED, TOO_LARGE = "does not decode", "animated picture", "too many pixels"
# Not all that PIL reads: some readers start programs (EPS) or hold formats inside formats (ICNS).
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
FITTING = "middle square, halved by boxes, then bicubic"  # how `square` makes a size
MAX_PIXELS = 64_000_000  # 8,000 x 8,000; decoding takes four bytes for each
# What PIL's readers raise on damaged files, found by damaging files of seventeen formats.
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image | None, str]:
    """The picture and "", or None and what is wrong. The size is read before any pixel is."""
    try:
        image = Image.open(io.BytesIO(data), formats=_readers())
        if image.width * image.height > max_pixels:
            return None, TOO_LARGE
        # A phone's JPEG may hold a second picture; the first is the one that was taken.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            return None, ANIMATED
        image.load()
        upright = ImageOps.exif_transpose(image)
        return rgb(upright), ""
    except Image.DecompressionBombError:
        return None, TOO_LARGE
    except DAMAGE:
        return None, BROKEN


@cache
def _readers() -> tuple[str, ...]:
    """Those of the formats that this PIL can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits: PIL would cut off what is brighter than 255
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L").convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle square at `size` pixels: halved by boxes while it can be, the rest bicubic.

    As ADM prepares pictures (arXiv 2105.05233): one large step would alias or blur. The square is
    cut first, so that an oblong picture costs no more than its square.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.width != image.height:
        image = image.crop((left, top, left + side, top + side))
    while image.width >= 2 * size:
        half = image.width // 2
        image = image.resize((half, half), Image.Resampling.BOX)
    return image if image.width == size else image.resize((size, size), Image.Resampling.BICUBIC)
