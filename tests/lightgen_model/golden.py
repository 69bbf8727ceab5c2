"""The small published network of lightgen.md 5.2 and the deterministic fill of 5.4."""

import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, ModelConfig
from lightgen_model.model import LightGen, gather_index
from lightgen_model.published import load_published, to_published

TEXT_LENGTH, TEXT_WIDTH, CHANNELS = 6, 24, 4
SMALL = ModelConfig(
    latent_channels=CHANNELS,
    width=32,
    num_heads=4,
    encoder_depth=2,
    decoder_depth=2,
    cross_depth=2,
    aligner_depth=2,
    text_width=TEXT_WIDTH,
    text_length=TEXT_LENGTH,
    head=HeadConfig(depth=2, width=48),
)


def filled() -> dict[str, Tensor]:
    """The small network's published state dict, every element from its key's place and its own."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in to_published(LightGen(SMALL).state_dict()).items()}
    return {name: fill(n, name, shapes[name]) for n, name in enumerate(sorted(shapes))}


def fill(number: int, name: str, shape: torch.Size) -> Tensor:
    k = torch.arange(shape.numel(), dtype=torch.float64)
    values = 0.05 * torch.sin(0.37 * k + 1.3 * number)
    if len(shape) == 1 and name.endswith(".weight"):
        values = values + 1
    return values.view(shape).float()


def small_model() -> LightGen:
    return load_published(filled(), num_heads=4, text_length=TEXT_LENGTH)


def waves(frequency: float, shift: float, *shape: int) -> Tensor:
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(frequency * k + shift).view(shape).float()


def inputs(height: int, width: int) -> dict[str, Tensor]:
    """Latents, text, mask, times and noise for a grid of tokens."""
    num_tokens = height * width
    sample, token = torch.arange(2)[:, None], torch.arange(num_tokens)
    k = torch.arange(2 * TEXT_LENGTH * TEXT_WIDTH, dtype=torch.float64)
    return {
        "latents": waves(0.1, 0.2, 2, CHANNELS, 2 * height, 2 * width),
        "text": torch.cos(0.05 * k).view(2, TEXT_LENGTH, TEXT_WIDTH).float(),
        "mask": (5 * token + 3 * sample) % 16 < 12,
        "times": 37 * torch.arange(2 * num_tokens) % 1000,
        "noise": waves(0.7, 0.0, 2 * num_tokens, 4 * CHANNELS),
    }


def stages(model: LightGen, given: dict[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """Every stage of the network, and the losses of all tokens with one draw each."""
    positions, visible = model.positions(grid), gather_index(~given["mask"])
    tokens = model.patchify(given["latents"])
    encoded = model.encode(tokens, visible, positions)
    decoded = model.decode(encoded, visible, positions)
    text = model.align(given["text"], torch.tensor([TEXT_LENGTH, TEXT_LENGTH]))
    everywhere = torch.arange(tokens.shape[1]).expand(2, -1)
    z, z_null = (
        model.condition(decoded, model.project(each), everywhere, positions)
        for each in (text, model.null(2))
    )
    flat, conditions = tokens.flatten(0, 1), z.flatten(0, 1)
    mse, vb = model.head.losses(flat, conditions, given["times"], given["noise"])
    head = model.head.net(flat, given["times"], model.head.net.condition_embed(conditions))
    return {
        "tokens": tokens,
        "encoder table": positions.encoder,
        "encoded": encoded,
        "decoded": decoded,
        "text": text.states,
        "z": z,
        "z_null": z_null,
        "head": head,
        "mse": mse,
        "vb": vb,
    }
