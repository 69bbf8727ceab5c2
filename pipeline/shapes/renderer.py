"""Draws the embedded world: a caption's `Spec` becomes placed objects, and those a picture.

In:    a Spec, a random generator, the picture's size and the side of a placement cell.
Out:   a list of `Placed`, then an RGB array (H, W, 3) of uint8.
Rerun: the same generator state gives the same picture. A cell keeps its size in pixels in a
       larger picture, so an object covers one student token at every resolution.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.shapes.grammar import COLOURS, SHAPES, Spec
from pipeline.shapes.rules import Box, relations

PALETTE = {
    "red": (222, 40, 40),
    "green": (36, 168, 72),
    "blue": (32, 84, 228),
    "yellow": (244, 200, 36),
    "purple": (172, 44, 192),
    "black": (28, 28, 32),
}
BACKGROUND = (250, 249, 245)
MIN_GAP = 2  # pixels between two objects, and between an object and the border
SUPERSAMPLING = 8
MAX_TRIES = 10_000
RENDERER_VERSION = 1  # raise when any pixel changes


@dataclass(frozen=True)
class Placed:
    shape: str
    colour: str
    left: int
    top: int
    size: int

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.left + self.size, self.top + self.size)


def layout(
    spec: Spec,
    rng: np.random.Generator,
    image_size: int,
    cell_pixels: int = 16,
    *,
    jitter_pixels: int = 0,
    free_placement: bool = False,
) -> list[Placed]:
    """Places exactly what the caption names; colours that it leaves open are drawn at random."""
    _fits(image_size, cell_pixels)
    size = cell_pixels * 3 // 4
    kinds = [
        (thing.shape, thing.colour or COLOURS[rng.integers(len(COLOURS))])
        for thing in spec.things
        for _ in range(thing.count)
    ]
    corners = _corners(
        rng, len(kinds), image_size, cell_pixels, size, jitter_pixels, free_placement
    )
    for _ in range(MAX_TRIES):
        placed = [
            Placed(shape, colour, left, top, size)
            for (shape, colour), (left, top) in zip(kinds, next(corners), strict=True)
        ]
        clear = spec.relation is None or relations(placed[0].box, placed[1].box) == {spec.relation}
        if clear and _apart(placed):
            return placed
    raise ValueError(
        f"no room for {len(kinds)} objects of {size} px in a picture of {image_size} px "
        f"with jitter {jitter_pixels} px"
    )


def render(placed: Sequence[Placed], image_size: int) -> NDArray[np.uint8]:
    pixels = np.empty((image_size, image_size, 3), np.uint8)
    pixels[:] = BACKGROUND
    for one in placed:
        tile = _tile(one.shape, one.colour, one.size)
        pixels[one.top : one.top + one.size, one.left : one.left + one.size] = tile
    return pixels


@cache
def coverage(shape: str, size: int) -> NDArray[np.float32]:
    """Share of each pixel that a shape covers, (size, size)."""
    steps = size * SUPERSAMPLING
    y, x = np.mgrid[0:steps, 0:steps] * (2 / steps) + (1 / steps - 1)  # centres in (-1, 1)
    if shape == "circle":
        inside = x * x + y * y <= 1
    elif shape == "square":
        inside = np.ones_like(x, dtype=bool)
    elif shape == "triangle":
        inside = np.abs(x) <= (y + 1.15) / 2.15
    elif shape == "cross":
        inside = (np.abs(x) <= 1 / 3) | (np.abs(y) <= 1 / 3)
    else:
        raise ValueError(f"unknown shape {shape!r}; the shapes are {list(SHAPES)}")
    blocks = inside.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


@cache
def _tile(shape: str, colour: str, size: int) -> NDArray[np.uint8]:
    share = coverage(shape, size)[:, :, None]
    mixed = share * np.array(PALETTE[colour]) + (1 - share) * np.array(BACKGROUND)
    return np.asarray(mixed.round(), dtype=np.uint8)


def _fits(image_size: int, cell_pixels: int) -> None:
    if image_size % cell_pixels or image_size < 2 * cell_pixels:
        raise ValueError(
            f"image size {image_size} must be a multiple of cell_pixels {cell_pixels}, "
            "at least two cells a side"
        )


def _corners(
    rng: np.random.Generator,
    count: int,
    image_size: int,
    cell_pixels: int,
    size: int,
    jitter_pixels: int,
    free_placement: bool,
) -> Iterator[list[tuple[int, int]]]:
    """Endless draws of one top-left corner an object, each draw uniform over its places."""
    cells = image_size // cell_pixels
    inset = (cell_pixels - size) // 2
    low, high = MIN_GAP, image_size - size - MIN_GAP
    while True:
        if free_placement:
            corners = rng.integers(low, high + 1, (count, 2))
        else:
            chosen = rng.permutation(cells * cells)[:count]
            corners = np.stack([chosen % cells, chosen // cells], axis=1) * cell_pixels + inset
        if jitter_pixels and not free_placement:
            corners = corners + rng.integers(-jitter_pixels, jitter_pixels + 1, (count, 2))
            corners = corners.clip(low, high)
        yield [(int(left), int(top)) for left, top in corners]


def _apart(placed: Sequence[Placed]) -> bool:
    return all(
        abs(one.left - other.left) >= one.size + MIN_GAP
        or abs(one.top - other.top) >= one.size + MIN_GAP
        for index, one in enumerate(placed)
        for other in placed[:index]
    )
