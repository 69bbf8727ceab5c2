"""What is random about a step: masks, text drops, times and noise.

In:    (seed, step), and the rows of the global batch that a process takes.
Out:   `Draws` for those rows. A row's draws come from a generator of its own, named by (seed, step,
       row), so that no process draws for another; only ratios and text drops, a number a row, are
       drawn for the whole batch by everyone.

Shapes: B rows taken, N tokens, T rows in the head, D token dims. All of it is made on the CPU.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightgen_model.config import ModelConfig
from lightgen_model.head import draw_times
from lightgen_model.masking import mask_ratios, masked_counts, masks_of
from pipeline.config import MaskingConfig


@dataclass(frozen=True)
class Draws:
    mask: Tensor  # (B, N), True where a token is to be predicted
    drop_text: Tensor  # (B,)
    times: Tensor  # (T / noises a time,)
    noise: Tensor  # (T, D)
    batch_total: int  # T of the whole batch


def generator(seed: int, step: int, row: int | None = None) -> torch.Generator:
    """The generator of a row of a step's batch, or of what the whole batch shares."""
    # Hashed: torch's CPU generator reads 32 bits of a seed, and sums of its parts would meet.
    name = f"{seed}:{step}:{row}".encode()
    seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little")
    return torch.Generator().manual_seed(seed)


def row_generators(seed: int, step: int, rows: Sequence[int]) -> list[torch.Generator]:
    return [generator(seed, step, row) for row in rows]


def draw(
    batch_size: int,
    rows: range,
    num_tokens: int,
    model: ModelConfig,
    masking: MaskingConfig,
    shared: torch.Generator,
    generators: Sequence[torch.Generator],
) -> Draws:
    """Draws for some rows of a batch; `shared` is at its start, `generators` belong to the rows."""
    num_ratios = batch_size if masking.per_sample else 1
    ratios = mask_ratios(num_ratios, masking.distribution, masking.min_ratio, shared)
    counts = masked_counts(ratios, num_tokens).expand(batch_size)
    drop = torch.rand(batch_size, generator=shared) < model.text_drop
    mine = slice(rows.start, rows.stop)
    orders = torch.stack([torch.rand(num_tokens, generator=g) for g in generators]).argsort(1)
    times, noise = [], []
    for count, own in zip(counts[mine].tolist(), generators, strict=True):
        num = count * model.head.batch_multiplier
        times.append(draw_times(model.head, num, own))
        noise.append(torch.randn(num, model.token_dim, generator=own))
    return Draws(
        masks_of(counts[mine], orders),
        drop[mine],
        torch.cat(times),
        torch.cat(noise),
        int(counts.sum()) * model.head.batch_multiplier,
    )


def mean_mask_ratio(masking: MaskingConfig) -> float:
    """The share of tokens that a step predicts, on average: for counting work."""
    numbers = torch.Generator().manual_seed(0)
    ratios = mask_ratios(1 << 16, masking.distribution, masking.min_ratio, numbers)
    return float(ratios.mean())


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copied without waiting for what the device is doing."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
