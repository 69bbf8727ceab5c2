"""The frozen VAE of the shapes world: shapes, scale and shift, a round trip, batches."""

from pathlib import Path

import pytest
import torch

from lightgen_model.autoencoder import Autoencoder, to_images, to_pixels

FOLDER = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes" / "autoencoder"


@pytest.fixture(scope="module")
def vae() -> Autoencoder:
    return Autoencoder.load(FOLDER)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """Three pictures (3, 3, 64, 64): a red square and a blue one, by place, on light grey."""
    images = torch.full((3, 64, 64, 3), 230, dtype=torch.uint8)
    for number, left in enumerate((2, 18, 34)):
        images[number, 18:30, left : left + 12] = torch.tensor([220, 40, 40], dtype=torch.uint8)
        images[number, 34:46, left : left + 12] = torch.tensor([50, 90, 220], dtype=torch.uint8)
    return to_pixels(images)


def test_pictures_survive_the_change_to_pixels_and_back() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 16, 3)
    pixels = to_pixels(images)
    assert (pixels.shape, pixels.min(), pixels.max()) == ((1, 3, 16, 16), -1, 1)
    assert torch.equal(to_images(pixels), images)


@pytest.mark.parametrize("size", [64, 128])
def test_eight_pixels_are_a_cell_of_sixteen_channels(vae: Autoencoder, size: int) -> None:
    moments = vae.encode(torch.zeros(2, 3, size, size))
    assert moments.shape == (2, 2 * 16, size // 8, size // 8)
    assert vae.decode(vae.mean(moments)).shape == (2, 3, size, size)


def test_a_picture_comes_back(vae: Autoencoder, pixels: torch.Tensor) -> None:
    error = (vae.decode(vae.mean(vae.encode(pixels))) - pixels).square().mean()
    assert 10 * torch.log10(4 / error) > 22  # dB of a range of 2


def test_latents_of_the_shapes_world_are_normalised(vae: Autoencoder, pixels: torch.Tensor) -> None:
    assert 0.2 < vae.mean(vae.encode(pixels)).std() < 5


def test_a_picture_does_not_depend_on_its_batch(vae: Autoencoder, pixels: torch.Tensor) -> None:
    together = vae.encode(pixels)
    alone = torch.cat([vae.encode(one[None]) for one in pixels])
    assert torch.allclose(together, alone, atol=1e-4)


def test_scale_and_shift_are_applied_and_undone(vae: Autoencoder) -> None:
    vae = Autoencoder(vae.vae)
    vae.shift, vae.scale = 0.0609, 1.5305
    moments = torch.full((1, 32, 2, 2), 0.7)
    assert torch.allclose(vae.mean(moments), torch.tensor((0.7 - 0.0609) * 1.5305))
    z = torch.ones(1, 16, 2, 2)
    plain = vae.vae.decode(z).sample.clamp(-1, 1)
    assert torch.allclose(vae.decode(vae.normalise(z)), plain, atol=1e-5)
