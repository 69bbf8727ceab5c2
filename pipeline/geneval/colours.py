"""The colour of an object, by CLIP: which of ten colours its crop looks most like.

In:    a picture with an object's box and mask, and the name of its class.
Out:   a `Colour`: one of GenEval's ten and the logits of all ten.

As published (arXiv 2310.11513): the object stands by its mask on flat #999, cut to its box; the
text of a colour is the mean of three templates' unit vectors; logits are 100 times the cosine.
The published program runs CLIP in float16 where there is a GPU, this one in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.clip_models import Clip
from pipeline.geneval.prompts import COLOURS
from pipeline.geneval.readings import Colour
from pipeline.geneval.rules import Boxes

TEMPLATES = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
BACKGROUND = "#999"
SCALE = 100.0


class Object(NamedTuple):
    """One object in its picture."""

    image: Image.Image
    name: str  # of its class
    box: Boxes  # (5,)
    mask: NDArray[np.bool_]  # (H, W) of the picture


class ColourReader:
    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.known: dict[str, Tensor] = {}  # class -> (10, D)

    def read(self, objects: Sequence[Object]) -> list[Colour]:
        if not objects:
            return []
        seen = self.clip.pictures([crop(one) for one in objects])  # (N, D)
        texts = torch.stack([self._texts(one.name) for one in objects])  # (N, 10, D)
        logits = SCALE * torch.einsum("nd,ncd->nc", seen, texts)
        return [Colour(tuple(row)) for row in logits.cpu().numpy().astype(np.float64).tolist()]

    def _texts(self, name: str) -> Tensor:
        """A unit vector a colour (10, D), of the templates with this class."""
        if name not in self.known:
            texts = [form.format(colour=c, name=name) for c in COLOURS for form in TEMPLATES]
            vectors = rearrange(self.clip.texts(texts), "(c t) d -> c t d", c=len(COLOURS))
            self.known[name] = F.normalize(vectors.mean(dim=1), dim=-1)
        return self.known[name]


def crop(one: Object) -> Image.Image:
    """The object on grey, cut to its box."""
    image = one.image.convert("RGB")
    grey = Image.new("RGB", image.size, BACKGROUND)
    alone = Image.composite(image, grey, Image.fromarray(one.mask))
    left, top, right, bottom = (round(float(side)) for side in one.box[:4])
    return alone.crop((left, top, right, bottom))
