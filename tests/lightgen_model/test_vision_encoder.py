"""The vision model: one patch a token, ImageNet's pixels, without the class token."""

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from lightgen_model.vision_encoder import MEAN, SPREAD, VisionEncoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    place = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(**sizes, patch_size=4, image_size=24)).save_pretrained(place)
    return place


def test_there_is_a_feature_a_token(folder: Path) -> None:
    encoder = VisionEncoder.load(folder)
    assert encoder.image_size(4) == 16
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    seen = encoder.encode(pixels)
    assert seen.shape == (2, 16, 16)
    mean, spread = (torch.tensor(x)[:, None, None] for x in (MEAN, SPREAD))
    with torch.no_grad():
        expected = encoder.model(((pixels + 1) / 2 - mean) / spread).last_hidden_state[:, 1:]
    assert torch.equal(seen, expected)


def test_features_stand_in_the_order_of_tokens(folder: Path) -> None:
    """A change in one corner moves that corner's feature most."""
    encoder = VisionEncoder.load(folder)
    pixels = torch.zeros(1, 3, 16, 16)
    other = pixels.clone()
    other[:, :, :4, 12:] = 1  # first row, last column
    moved = (encoder.encode(other) - encoder.encode(pixels)).square().sum(-1)[0]
    assert int(moved.argmax()) == 3
