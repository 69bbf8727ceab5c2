"""The small published network of lightgen.md 5.2 and the deterministic fill of 5.4."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, ModelConfig, SamplingConfig
from lightgen_model.model import LightGen, gather_index, take
from lightgen_model.published import load_published, to_published
from lightgen_model.sampling import draw_tokens

TEXT_LENGTH, TEXT_WIDTH, CHANNELS, HEAD_STEPS = 6, 24, 4, 10
LOAD: dict[str, Any] = {"num_heads": 4, "text_length": TEXT_LENGTH}  # what no shape tells
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
    return load_published(filled(), **LOAD)


def released(path: Path, **parts: object) -> Path:
    """A file as the released trainer writes it."""
    ema = {name: 2 * tensor for name, tensor in filled().items()}
    values = {"model": filled(), "model_ema": ema, "optimizer": {"state": {}}, "epoch": 20}
    values |= {"scaler": {"scale": 65536.0}, "args": argparse.Namespace(lr=1e-4, model="fluid")}
    torch.save(values | parts, path)
    return path


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


def outspoken() -> dict[str, Tensor]:
    """The golden fill with a head that listens: a picture then tells 1% more guidance apart."""
    state = filled()
    state["diffloss.net.cond_embed.weight"] *= 10
    state["diffloss.net.final_layer.linear.weight"] *= 4
    return state


def outspoken_model() -> LightGen:
    return load_published(outspoken(), **LOAD)


def sample_case(name: str, grid: tuple[int, int], num_iterations: int, **changes: object) -> Any:
    """How to draw two pictures: orders, and a noise tape (head steps + 1, B, N, D) by token."""
    num_tokens = grid[0] * grid[1]
    order = (5 * torch.arange(num_tokens) + 3) % num_tokens
    return {
        "name": name,
        "kind": "sample",
        "grid": grid,
        "num_iterations": num_iterations,
        "guidance": 4.0,
        "guidance_schedule": "constant",
        "temperature": 1.0,
        "text": inputs(*grid)["text"],
        "orders": torch.stack([order, order.flip(0)]),
        "tape": 1.4 * waves(0.7, 0.3, HEAD_STEPS + 1, 2, num_tokens, 4 * CHANNELS),
    } | changes


@torch.inference_mode()
def drawn(model: LightGen, case: dict[str, Any]) -> Tensor:
    """Our sampler's loop under the case's orders and noise tape."""
    num_tokens, names = case["orders"].shape[1], ("num_iterations", "guidance", "temperature")
    sampling = SamplingConfig(
        head_steps=HEAD_STEPS,
        guidance_schedule=case["guidance_schedule"],
        **{name: case[name] for name in names},
    )

    def noise(index: Tensor) -> Iterator[Tensor]:
        return (take(level, index).flatten(0, 1) for level in case["tape"])

    *_, (_, _, tokens) = draw_tokens(
        model,
        model.align(case["text"], torch.full((2,), TEXT_LENGTH)),
        torch.zeros(2, num_tokens, SMALL.token_dim),
        case["orders"],
        [num_tokens, num_tokens],
        sampling,
        noise,
        grid=case["grid"],
    )
    return model.unpatchify(tokens, case["grid"])
