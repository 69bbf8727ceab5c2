"""The small vision model of the shapes world: what it is taught, and that it learns it."""

import pytest
import torch
import torch.nn.functional as F

from lightgen_model.vision_encoder import VisionEncoder
from pipeline.shapes.grammar import COLOURS, SHAPES
from pipeline.shapes.renderer import Placed
from pipeline.shapes.vision import (
    NUM_KINDS,
    build_vision_encoder,
    kinds_of,
    naming_loss,
    render_batch,
    train_vision_encoder,
)


def alike(encoder: VisionEncoder) -> float:
    """Mean cosine of what is seen where objects are, of every kind."""
    pixels, shown = render_batch(100, 11, 64)
    seen = F.normalize(encoder.encode(pixels)[shown[..., 0] < len(SHAPES)], dim=-1)
    return (seen @ seen.T).mean().item()


def test_each_patch_is_told_what_it_shows() -> None:
    placed = [Placed("cross", "black", 2, 2, 12), Placed("circle", "green", 50, 18, 12)]
    kinds = kinds_of(placed, 4)
    assert kinds.shape == (16, 2)
    assert kinds[0].tolist() == [SHAPES.index("cross"), COLOURS.index("black")]
    assert kinds[7].tolist() == [SHAPES.index("circle"), COLOURS.index("green")]
    assert (kinds[[1, 2, 15]] == torch.tensor([len(SHAPES), len(COLOURS)])).all()


def test_objects_weigh_as_much_as_the_ground() -> None:
    kinds = torch.tensor([[[0, 0], [4, 6], [4, 6], [4, 6]]])
    right = torch.full((1, 4, sum(NUM_KINDS)), -50.0)
    right[0, 0, [0, 5]] = right[0, 1:, 4] = right[0, 1:, 11] = 50.0
    assert naming_loss(right, kinds).item() == pytest.approx(0, abs=1e-6)
    blind = right.clone()
    blind[0, 0] = right[0, 1]  # sees nothing where the object is
    assert naming_loss(blind, kinds).item() == pytest.approx(100, rel=1e-3)


def test_training_tells_objects_apart() -> None:
    before = build_vision_encoder()
    assert all(map(torch.equal, before.parameters(), build_vision_encoder().parameters()))
    trained = train_vision_encoder(build_vision_encoder(), steps=40, num_pictures=200)
    assert alike(VisionEncoder(trained)) < alike(VisionEncoder(before)) - 0.2
    assert VisionEncoder(trained).image_size(4) == 64
