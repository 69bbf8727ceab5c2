"""Pictures that are plainly broken, found without a model.

In:    a picture.
Out:   what is wrong with it, "" when nothing is.
"""

import numpy as np
from PIL import Image

BLACK, FLAT, UNSAFE = "black picture", "one flat colour", "unsafe picture"
DARKEST = 8  # of 255: a picture of nothing brighter is black, as a safety filter or NaN leave it
FLATTEST = 3  # levels between the brightest and the darkest of each colour


def flaw(image: Image.Image) -> str:
    ranges = np.array([band.getextrema() for band in image.convert("RGB").split()])
    if (ranges[:, 1] <= DARKEST).all():
        return BLACK
    return FLAT if (ranges[:, 1] - ranges[:, 0] <= FLATTEST).all() else ""
