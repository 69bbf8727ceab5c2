"""The frozen VAE of the shapes world, and small ones of other classes: scale and shift, batches."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3_img2img import (
    retrieve_latents,
)

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


# --- classes ------------------------------------------------------------------------------------


def small_kl(**values: float) -> AutoencoderKL:
    """SD 3.5's and Flux's class with random weights: stride 4, four channels."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8,) * 3,
        norm_num_groups=4,
        latent_channels=4,
        **values,
    )


def small_dc(**values: float) -> AutoencoderDC:
    """DC-AE's class with random weights: stride 4, eight channels."""
    torch.manual_seed(0)
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    return AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 16, 16),
        decoder_block_out_channels=(8, 16, 16),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), (3,)),
        decoder_qkv_multiscales=((), (), (3,)),
        **values,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"scaling_factor": 1.5305, "shift_factor": 0.0609},  # SD 3.5
        {"scaling_factor": 0.3611, "shift_factor": 0.1159},  # Flux
        {"scaling_factor": 0.18215},  # SD 1, no shift
    ],
)
def test_latents_are_those_of_diffusers_pipelines(tmp_path, pixels, values) -> None:
    small_kl(**values).save_pretrained(tmp_path)
    ours = Autoencoder.load(tmp_path)
    # As the pipelines of SD 3 and Flux encode a picture, and decode what they drew.
    z = retrieve_latents(ours.vae.encode(pixels), sample_mode="argmax")
    shift = values.get("shift_factor", 0)
    expected = (z - shift) * values["scaling_factor"]
    assert torch.allclose(ours.latents(pixels), expected, atol=1e-6)
    assert torch.allclose(ours.mean(ours.encode(pixels)), expected, atol=1e-6)
    back = ours.vae.decode(expected / values["scaling_factor"] + shift).sample.clamp(-1, 1)
    assert torch.allclose(ours.decode(expected), back, atol=1e-5)


def test_dc_ae_has_means_and_no_moments(tmp_path, pixels) -> None:
    small_dc(scaling_factor=0.41407).save_pretrained(tmp_path)
    ours = Autoencoder.load(tmp_path)
    expected = ours.vae.encode(pixels).latent * 0.41407  # as Sana's pipelines do
    assert expected.shape == (3, 8, 16, 16)
    assert torch.equal(ours.latents(pixels), expected)
    back = ours.vae.decode(expected / 0.41407).sample.clamp(-1, 1)
    assert torch.allclose(ours.decode(expected), back, atol=1e-5)
    with pytest.raises(ValueError, match="AutoencoderDC gives one latent a picture"):
        ours.encode(pixels)


def test_means_are_the_first_half_of_the_moments(vae: Autoencoder, pixels: torch.Tensor) -> None:
    assert torch.equal(vae.means(pixels), vae.encode(pixels)[:, :16])


def test_half_precision_is_near(pixels: torch.Tensor) -> None:
    exact = Autoencoder.load(FOLDER).latents(pixels)
    near = Autoencoder.load(FOLDER, dtype=torch.bfloat16).latents(pixels)
    assert near.dtype == torch.float32
    assert (near - exact).square().mean().sqrt() < 0.02 * exact.square().mean().sqrt()


def test_a_folder_of_another_class_is_named(tmp_path) -> None:
    one = {"encoder_block_out_channels": (8,), "decoder_block_out_channels": (8,)}
    blocks = {"num_encoder_blocks": (1,), "num_decoder_blocks": (1,)}
    AutoencoderTiny(**one, **blocks).save_pretrained(tmp_path / "tiny")
    with pytest.raises(ValueError, match="holds a AutoencoderTiny; allowed: AutoencoderKL, "):
        Autoencoder.load(tmp_path / "tiny")
    (tmp_path / "whole").mkdir()
    with pytest.raises(ValueError, match=r"no config.json of an autoencoder; .* subfolder vae"):
        Autoencoder.load(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scaling_factor": None}, "does not say its scaling_factor"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}, "scales each channel"),
    ],
)
def test_latents_of_unknown_scale_are_refused(tmp_path, changes, words) -> None:
    small_kl(scaling_factor=1.0).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    # diffusers fills in SD 1's scale where there is none, so a missing one is looked for before.
    kept = {name: value for name, value in values.items() if value is not None}
    for each in (values, kept):
        path.write_text(json.dumps(each))
        with pytest.raises(ValueError, match=words):
            Autoencoder.load(tmp_path)
