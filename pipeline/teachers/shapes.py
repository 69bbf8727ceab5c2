"""The embedded world's teacher: draws a caption of the grammar, a known share of them wrongly.

In:    captions, seeds, a picture size.
Out:   pictures; a caption outside the grammar gives none, with the reason.
Rerun: a picture depends on its caption, its seed and the config alone. Whether it is wrong does
       not depend on its size, and the right ones do not change with the error rate.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pipeline.config import ShapesTeacher
from pipeline.shapes.grammar import COLOURS, RELATIONS, SHAPES, Spec, Thing, parse
from pipeline.shapes.renderer import RENDERER_VERSION, layout, render
from pipeline.teachers import Drawing, TeacherFacts

NOT_IN_GRAMMAR = "not in the grammar"
_OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))


class ShapesDrawer:
    def __init__(self, config: ShapesTeacher) -> None:
        self.config = config
        self.facts = TeacherFacts("shapes", str(RENDERER_VERSION), config.licence, 1, 0.0)

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        return [
            self._draw_one(caption, seed, image_size)
            for caption, seed in zip(captions, seeds, strict=True)
        ]

    def _draw_one(self, caption: str, seed: int, image_size: int) -> Drawing:
        spec = parse(caption)
        if spec is None:
            return Drawing(None, NOT_IN_GRAMMAR)
        mistakes = _generator("mistake", caption, seed)
        if mistakes.random() < self.config.error_rate:
            spec = mistaken(spec, mistakes)
        placed = layout(
            spec,
            _generator("layout", caption, seed),
            image_size,
            self.config.cell_pixels,
            jitter_pixels=self.config.jitter_pixels,
            free_placement=self.config.free_placement,
        )
        return Drawing(Image.fromarray(render(placed, image_size)))


def _generator(purpose: str, caption: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{purpose}:{seed}:{caption}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def mistaken(spec: Spec, rng: np.random.Generator) -> Spec:
    """Another scene, wrong for this caption in a way that real teachers are."""
    which = int(rng.integers(len(spec.things)))
    thing = spec.things[which]
    ways = []
    if thing.colour is not None:
        others = [colour for colour in COLOURS if colour != thing.colour]
        ways.append(_swapped_in(spec, which, replace(thing, colour=_one_of(others, rng))))
    if spec.task == "counting":
        count = thing.count + (1 if rng.random() < 0.5 else -1)
        ways.append(_swapped_in(spec, which, replace(thing, count=count)))
    if spec.relation is not None:
        ways.append(replace(spec, relation=_OPPOSITE[spec.relation]))
    if len(spec.things) == 2:
        ways.append(replace(spec, things=(spec.things[1 - which],), relation=None))
    elif spec.task != "counting":
        others = [shape for shape in SHAPES if shape != thing.shape]
        ways.append(_swapped_in(spec, which, replace(thing, shape=_one_of(others, rng))))
    return ways[rng.integers(len(ways))]


def _swapped_in(spec: Spec, which: int, thing: Thing) -> Spec:
    things = list(spec.things)
    things[which] = thing
    return replace(spec, things=tuple(things))


def _one_of(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
