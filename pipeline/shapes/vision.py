"""The embedded world's own vision model, for `features.alignment_encoder` (REPA).

In:    nothing but the grammar and the renderer.
Out:   a folder that transformers loads: a `Dinov2Model` of two layers and width 64, which learned
       here to say of each patch which shape and which colour it shows. Weights are float16.
Rerun: writes it again, from the same seed the same weights on the same machine:

    python -m pipeline.shapes.vision --out infra/models/shapes/vision_encoder

With `--steps 0` the weights stay random: a fixed mixture of each patch, which is what the benchmark
compares with. A patch is one cell of the renderer and one token of the student.

Shapes: B pictures, N patches, pixels (B, 3, H, W) in [-1, 1].
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from tqdm import trange
from transformers import Dinov2Config, Dinov2Model

from lightgen_model.autoencoder import to_pixels
from lightgen_model.vision_encoder import VisionEncoder
from pipeline.shapes.grammar import COLOURS, SHAPES, parse, sample_captions
from pipeline.shapes.renderer import Placed, layout, render

WIDTH, DEPTH, HEADS, PATCH = 64, 2, 4, 16
NUM_KINDS = (len(SHAPES) + 1, len(COLOURS) + 1)  # the last of each: nothing is there
PEAK_RATE = 2e-3


def build_vision_encoder(seed: int = 0) -> Dinov2Model:
    """DINOv2's architecture in small, of random weights."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        patch_size=PATCH,
        image_size=4 * PATCH,
        initializer_range=0.02,
    )
    return Dinov2Model(config).eval()


def render_batch(num: int, seed: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Right pictures of sampled captions (num, 3, H, W), and what each patch shows (num, N, 2):
    numbers of shape and colour."""
    rng = np.random.default_rng(seed)
    pictures, kinds = [], []
    for caption in sample_captions(num, seed):
        spec = parse(caption)
        assert spec is not None, caption
        placed = layout(spec, rng, image_size, PATCH)
        pictures.append(render(placed, image_size))
        kinds.append(kinds_of(placed, image_size // PATCH))
    return to_pixels(torch.from_numpy(np.stack(pictures))), torch.stack(kinds)


def kinds_of(placed: Sequence[Placed], grid: int) -> Tensor:
    """Shape and colour of each patch, (N, 2), raster order; the last number where nothing is."""
    kinds = torch.tensor([len(SHAPES), len(COLOURS)]).repeat(grid * grid, 1)
    for one in placed:
        cell = one.top // PATCH * grid + one.left // PATCH
        kinds[cell] = torch.tensor([SHAPES.index(one.shape), COLOURS.index(one.colour)])
    return kinds


def train_vision_encoder(
    model: Dinov2Model, steps: int, seed: int = 0, num_pictures: int = 6000
) -> Dinov2Model:
    """Learn to name what each patch shows, at 64 and 128 px in turn, as many patches of each."""
    torch.manual_seed(seed)
    head = nn.Linear(WIDTH, sum(NUM_KINDS))
    parameters = [*model.train().parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    pools = [
        render_batch(num_pictures, seed + 1, 64),
        render_batch(num_pictures // 4, seed + 2, 128),
    ]
    generator = torch.Generator().manual_seed(seed + 3)
    bar = trange(steps, desc="vision encoder")
    for step in bar:
        pixels, kinds = pools[step % 2]
        rows = torch.randint(len(pixels), (128 if step % 2 == 0 else 32,), generator=generator)
        loss = naming_loss(head(patches_of(model, pixels[rows])), kinds[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    return model.eval()


def patches_of(model: Dinov2Model, pixels: Tensor) -> Tensor:
    """Features (B, N, F) as training's reader sees them, with gradients."""
    return VisionEncoder.patches(model, pixels, PATCH)


def naming_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Cross-entropy of shape and colour; patches with an object weigh as much as all others."""
    shapes, colours = torch.split(rearrange(logits, "b n k -> (b n) k"), list(NUM_KINDS), dim=-1)
    kinds = rearrange(kinds, "b n two -> (b n) two")
    each = F.cross_entropy(shapes, kinds[:, 0], reduction="none")
    each = each + F.cross_entropy(colours, kinds[:, 1], reduction="none")
    there = kinds[:, 0] < len(SHAPES)
    return (each[there].mean() + each[~there].mean()) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the small vision model of the shapes world.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600, help="training steps; 0: random weights")
    args = parser.parse_args()
    model = build_vision_encoder()
    if args.steps:
        model = train_vision_encoder(model, args.steps)
    model.half().save_pretrained(args.out)


if __name__ == "__main__":
    main()
