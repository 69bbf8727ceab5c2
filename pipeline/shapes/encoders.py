"""The embedded world's own VAE and T5: small, and loaded through the same classes as the big ones.

In:    nothing but the grammar and the renderer.
Out:   two folders that diffusers and transformers load: `autoencoder/` (an `AutoencoderKL`, f8, 16
       channels, trained here on rendered shapes) and `text_encoder/` (a T5 encoder from a fixed
       seed with a tokenizer of explicit vocabulary).
Rerun: writes both again:

    python -m pipeline.shapes.encoders --out infra/models/shapes

`infra/models/shapes` ships such folders. Its VAE had its 2,000 steps at 64 px from an earlier form
of this command and its 500 at both sizes from this one. The detector finds every object in 200
restored pictures of each size; in those of a VAE that the command made from nothing, in 199.

Shapes: B pictures, pixels (B, 3, H, W) in [-1, 1].
"""

import argparse
import math
import string
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from lightgen_model.autoencoder import to_pixels
from pipeline.shapes.grammar import WORDS, parse, sample_captions
from pipeline.shapes.renderer import layout, render

TEXT_WIDTH, TEXT_HEADS, TEXT_LENGTH = 128, 8, 20
# A T5 from a random seed has nearly flat relative positions, so "red circle, blue square" and
# "blue circle, red square" would look alike to it. Each head here looks at one place near its word.
HEAD_OFFSETS = (-3, -2, -1, 1, 2, 3, -4, 4)
HEAD_SHARPNESS = 6.0
# Noise on the latents while the VAE trains: codes move apart, and the decoder forgives the
# student's small errors.
LATENT_NOISE = 0.3
POSTERIOR_STD = 0.1  # of the latents' own spread
KL_WEIGHT = 1e-3
PEAK_RATE = 3e-3


def build_tokenizer() -> T5Tokenizer:
    """One piece a word of the grammar; any other text falls back to characters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [("\u2581" + word, -3.0) for word in WORDS]
    pieces += [(c, -8.0) for c in string.ascii_lowercase + string.digits + ".,'-"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_LENGTH)


def build_text_encoder(tokenizer: T5Tokenizer, seed: int = 0) -> T5EncoderModel:
    """A two-layer T5 encoder of random weights that knows which word stands beside which."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=TEXT_WIDTH // TEXT_HEADS,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=TEXT_HEADS,
        relative_attention_num_buckets=32,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
    )
    model = T5EncoderModel(config).eval()
    bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        bias.zero_()
        for head, offset in enumerate(HEAD_OFFSETS):
            bucket = abs(offset) + (16 if offset > 0 else 0)  # T5's exact buckets, both ways
            bias[bucket, head] = HEAD_SHARPNESS
    return model


def build_autoencoder() -> AutoencoderKL:
    """SD3's shape in small: f8, 16 channels, no quant convolutions, no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
        force_upcast=False,
    )


def render_batch(num: int, seed: int, image_size: int = 64) -> Tensor:
    """`num` right pictures of sampled captions: pixels (num, 3, H, W)."""
    rng = np.random.default_rng(seed)
    pictures = []
    for caption in sample_captions(num, seed):
        spec = parse(caption)
        assert spec is not None, caption
        pictures.append(render(layout(spec, rng, image_size=image_size), image_size))
    return to_pixels(torch.from_numpy(np.stack(pictures)))


def train_autoencoder(
    vae: AutoencoderKL, steps: int, image_sizes: tuple[int, ...], seed: int, batch_size: int = 32
) -> AutoencoderKL:
    """Reconstruct rendered shapes through noisy latents; sizes in turn, as many pixels of each."""
    torch.manual_seed(seed)
    pools = [
        render_batch(12_000 * 64**2 // size**2, seed + size, image_size=size)
        for size in image_sizes
    ]
    sizes = [batch_size * 64**2 // size**2 for size in image_sizes]
    optimizer = torch.optim.AdamW(vae.train().parameters(), lr=PEAK_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed + 2)
    bar = trange(steps, desc=f"autoencoder {image_sizes} px")
    for step in bar:
        turn = step % len(pools)
        rows = torch.randint(len(pools[turn]), (sizes[turn],), generator=generator)
        pixels = pools[turn][rows]
        z = vae.encode(pixels).latent_dist.mode()
        noise = torch.randn(z.shape, generator=generator)
        restored = vae.decode(z + LATENT_NOISE * z.std().detach() * noise).sample
        # Objects are a small share of the pixels: weigh what differs from the background.
        weight = 1 + 4 * (pixels - pixels.amax((2, 3), keepdim=True)).abs().amax(1, keepdim=True)
        error = (F.smooth_l1_loss(restored, pixels, reduction="none", beta=0.1) * weight).mean()
        kl = 0.5 * z.square().mean()  # of a posterior whose variance is fixed
        optimizer.zero_grad()
        (error + KL_WEIGHT * kl).backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(error=f"{error.item():.4f}", kl=f"{kl.item():.2f}")
    return vae.eval()


@torch.inference_mode()
def normalise(vae: AutoencoderKL) -> AutoencoderKL:
    """Latents of unit scale by the config, and a posterior that is narrow against them."""
    pixels = render_batch(2048, seed=1)
    parts = [pixels[first : first + 256] for first in range(0, len(pixels), 256)]
    z = torch.cat([vae.encode(part).latent_dist.mode() for part in parts])
    vae.register_to_config(scaling_factor=1 / z.std().item(), shift_factor=z.mean().item())
    return fix_variance(vae, POSTERIOR_STD * z.std().item())


@torch.no_grad()
def fix_variance(vae: AutoencoderKL, std: float) -> AutoencoderKL:
    """Give every posterior the same spread: the encoder was trained for its mean alone."""
    half = vae.config.latent_channels
    vae.encoder.conv_out.weight[half:].zero_()
    vae.encoder.conv_out.bias[half:].fill_(2 * math.log(std))
    return vae.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the small VAE and T5 of the shapes world.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000, help="training steps at 64 px")
    args = parser.parse_args()
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(args.out / "text_encoder")
    build_text_encoder(tokenizer).save_pretrained(args.out / "text_encoder")
    vae = train_autoencoder(build_autoencoder(), args.steps, (64,), seed=0)
    # GroupNorm's statistics depend on the picture's size, so the larger one is seen too.
    vae = train_autoencoder(vae, args.steps // 4, (64, 128), seed=7)
    normalise(vae).save_pretrained(args.out / "autoencoder")


if __name__ == "__main__":
    main()
