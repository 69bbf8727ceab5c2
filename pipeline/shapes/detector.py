"""Finds the embedded world's objects in any RGB picture: shape, colour and place.

In:    a picture of any size, as (H, W, 3) uint8 or PIL.
Out:   one `Found` an object. Exact on what the renderer draws; it bears the blur and noise of a
       decoded latent, and finds nothing in noise. It knows no cell size: an object is a patch of
       one palette colour on background that fills its box as one of the shapes does.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.shapes.grammar import COLOURS, SHAPES
from pipeline.shapes.renderer import BACKGROUND, PALETTE, coverage
from pipeline.shapes.rules import Box, Found

MAX_COLOUR_DISTANCE = 60.0  # RGB units from a mixture of one colour and the background
MIN_COVERAGE = 0.5  # share of the colour in that mixture
MAX_BACKGROUND_DISTANCE = 110.0  # RGB units: faded edges are neither object nor background
MIN_SIDE = 7  # pixels
MAX_ASPECT = 1.5
MIN_OVERLAP = 0.72  # intersection over union with the shape
RING = 2  # pixels around an object in which the background must show
MIN_BACKGROUND = 0.7  # share of that ring
MIN_PICTURE_BACKGROUND = 0.25  # share of the whole picture; four packed objects leave 0.4
FRAME = 12  # side to which a patch is scaled before it is compared

DETECTOR_VERSION = 1  # raise when any picture may read otherwise

_BACKGROUND = len(COLOURS)
_OTHER = len(COLOURS) + 1


def detect(image: NDArray[np.uint8] | Image.Image) -> list[Found]:
    """Objects in reading order."""
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    bins = (pixels >> 3).astype(np.intp)
    colours = _nearest_colours()[bins[..., 0], bins[..., 1], bins[..., 2]]
    counts = np.bincount(colours.ravel(), minlength=_OTHER + 1)
    found: list[Found] = []
    if counts[_BACKGROUND] < MIN_PICTURE_BACKGROUND * colours.size:
        return found
    for index in range(len(COLOURS)):
        if counts[index] >= MIN_SIDE * MIN_SIDE // 3:
            found.extend(_of_colour(colours, index))
    return sorted(found, key=lambda one: (one.box.top, one.box.left))


def _of_colour(colours: NDArray[np.uint8], colour: int) -> list[Found]:
    labels, _ = ndimage.label(colours == colour)
    found = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < MIN_SIDE or max(height, width) > MAX_ASPECT * min(height, width):
            continue
        shape, overlap = _nearest_shape(labels[rows, columns] == index)
        if overlap >= MIN_OVERLAP and _on_background(colours, rows, columns):
            box = Box(columns.start, rows.start, columns.stop, rows.stop)
            found.append(Found(shape, COLOURS[colour], box, overlap))
    return found


def _on_background(colours: NDArray[np.uint8], rows: slice, columns: slice) -> bool:
    """Whether the frame around a box is background: a blob in a coloured blur is no object."""
    inner = colours[rows, columns]
    outer = colours[
        max(rows.start - RING, 0) : rows.stop + RING,
        max(columns.start - RING, 0) : columns.stop + RING,
    ]
    blank = np.count_nonzero(outer == _BACKGROUND) - np.count_nonzero(inner == _BACKGROUND)
    ring = (inner.shape[0] + 2 * RING) * (inner.shape[1] + 2 * RING) - inner.size
    return bool(blank >= MIN_BACKGROUND * ring)  # what lies outside the picture is not background


def _nearest_shape(patch: NDArray[np.bool_]) -> tuple[str, float]:
    height, width = patch.shape
    centres = np.arange(FRAME) + 0.5
    rows = (centres * height / FRAME).astype(np.intp)
    columns = (centres * width / FRAME).astype(np.intp)
    scaled = patch[rows[:, None], columns]
    shapes = _shapes()
    overlaps = (shapes & scaled).sum(axis=(1, 2)) / (shapes | scaled).sum(axis=(1, 2))
    best = int(overlaps.argmax())
    return SHAPES[best], float(overlaps[best])


@cache
def _shapes() -> NDArray[np.bool_]:
    """(shape, FRAME, FRAME)"""
    return np.stack([coverage(shape, FRAME) > 0.5 for shape in SHAPES])


@cache
def _nearest_colours() -> NDArray[np.uint8]:
    """Index into COLOURS by RGB in bins of eight; an edge pixel counts as what covers it most."""
    levels = np.arange(32, dtype=np.float64) * 8 + 4
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    background = np.array(BACKGROUND, dtype=np.float64)
    ways = np.array([PALETTE[colour] for colour in COLOURS]) - background  # (colour, 3)
    shares = ((rgb - background) @ ways.T / (ways**2).sum(axis=1)).clip(0, 1)
    distances = np.linalg.norm(rgb[..., None, :] - background - shares[..., None] * ways, axis=-1)
    nearest = distances.argmin(axis=-1)
    share = np.take_along_axis(shares, nearest[..., None], axis=-1)[..., 0]
    blank = np.linalg.norm(rgb - background, axis=-1) <= MAX_BACKGROUND_DISTANCE
    classes = np.where(share >= MIN_COVERAGE, nearest, np.where(blank, _BACKGROUND, _OTHER))
    return np.where(distances.min(axis=-1) > MAX_COLOUR_DISTANCE, _OTHER, classes).astype(np.uint8)
