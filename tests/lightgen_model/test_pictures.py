"""Pictures and masks: every form that diffusers users give means the same pixels."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightgen_model.autoencoder import to_images
from lightgen_model.pictures import read_edit, read_image, read_mask

ARRAY = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
MASK = (np.arange(32 * 48).reshape(32, 48) % 7 < 3).astype(np.uint8) * 255


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(ARRAY),
        Image.fromarray(ARRAY).convert("RGBA"),
        [Image.fromarray(ARRAY)],
        ARRAY,
        ARRAY[None],
        ARRAY / 255,
        [ARRAY / 255],
        torch.from_numpy(ARRAY).permute(2, 0, 1),
        torch.from_numpy(ARRAY).permute(2, 0, 1)[None] / 255,
    ],
    ids=lambda image: f"{type(image).__name__}",
)
def test_every_form_of_a_picture_has_its_pixels(image: Any) -> None:
    pixels = read_image(image)
    assert pixels.shape == (1, 3, 32, 48)
    assert np.array_equal(to_images(pixels)[0].numpy(), ARRAY)


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(MASK),
        Image.fromarray(MASK).convert("RGB"),
        Image.fromarray(MASK).convert("1"),
        MASK,
        MASK / 255,
        MASK[..., None] > 0,
        torch.from_numpy(MASK > 0),
        torch.from_numpy(MASK)[None, None],
    ],
    ids=lambda mask: f"{type(mask).__name__}",
)
def test_every_form_of_a_mask_is_zeros_and_ones(mask: Any) -> None:
    assert np.array_equal(read_mask(mask).numpy(), MASK[None, None] / 255)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ([], "image is an empty list"),
        ("picture.png", "image is a str; allowed: a PIL picture"),
        (ARRAY.astype(float), "has values 0 to 255; allowed: floats 0 to 1"),
        (np.full((16, 16, 3), np.nan), "has values nan"),
        (ARRAY[..., :2], r"of shape \(32, 48, 2\); it needs 3 channels"),
        ([ARRAY, ARRAY[:16]], "must have one width x height, not 48 x 16, 48 x 32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_named(image: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_image(image)


def test_a_mask_without_white_asks_for_nothing() -> None:
    with pytest.raises(ValueError, match="mask_image 1 has no white pixel"):
        read_mask([MASK, MASK * 0])


def test_one_picture_serves_all_prompts_and_else_each_has_its_own() -> None:
    edit = read_edit([ARRAY, 255 - ARRAY], MASK, num_prompts=2, num_images=2)
    assert edit is not None
    assert edit.size == (32, 48)
    assert edit.mask.shape == (4, 1, 32, 48)
    same = [torch.equal(edit.pixels[0], row) for row in edit.pixels]
    assert same == [True, True, False, False]
    assert read_edit(None, None, 2, 2) is None
