"""What is random about a step: masks, text drops, times and noise.

In:    (seed, step), and the rows of the global batch that a process takes.
Out:   `Draws` for those rows. Every `BLOCK` rows have a generator, named by (seed, step, block), so
       that a process draws for few rows of another; only ratios and text drops, a number a row,
       are drawn for the whole batch by everyone.

Shapes: B rows taken, N tokens, T rows in the head, D token dims. All of it is made on the CPU.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightgen_model.config import ModelConfig
from lightgen_model.head import draw_times
from lightgen_model.masking import mask_ratios, masked_counts, masks_of, random_orders
from pipeline.config import MaskingConfig

BLOCK = 128  # rows; one call a block is many times faster than one a row


@dataclass(frozen=True)
class Draws:
    mask: Tensor  # (B, N), True where a token is to be predicted
    drop_text: Tensor  # (B,)
    times: Tensor  # (T / noises a time,)
    noise: Tensor  # (T, D)
    batch_total: int  # T of the whole batch

    def map(self, move: Callable[[Tensor], Tensor]) -> "Draws":
        mask, drop_text = move(self.mask), move(self.drop_text)
        return Draws(mask, drop_text, move(self.times), move(self.noise), self.batch_total)


def generator(seed: int, step: int, of: int | str | None = None) -> torch.Generator:
    """The generator of a row or a block of a step's batch, or of what the whole batch shares."""
    # Hashed: torch's CPU generator reads 32 bits of a seed, and sums of its parts would meet.
    name = f"{seed}:{step}:{of}".encode()
    seed = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "little")
    return torch.Generator().manual_seed(seed)


def row_generators(seed: int, step: int, rows: Sequence[int]) -> Iterable[torch.Generator]:
    """In turn; one that is not used is not made."""
    return (generator(seed, step, row) for row in rows)


def draw(
    batch_size: int,
    rows: range,
    num_tokens: int,
    model: ModelConfig,
    masking: MaskingConfig,
    seed: int,
    step: int,
) -> Draws:
    """Draws for some rows of a step's batch; the same for a row whatever others are asked for."""
    shared = generator(seed, step)
    num_ratios = batch_size if masking.per_sample else 1
    ratios = mask_ratios(num_ratios, masking.distribution, masking.min_ratio, shared)
    counts = masked_counts(ratios, num_tokens).expand(batch_size)
    drop = torch.rand(batch_size, generator=shared) < model.text_drop
    parts = []
    for first in range(rows.start // BLOCK * BLOCK, rows.stop, BLOCK):
        own = generator(seed, step, f"block {first}")
        mine = slice(max(rows.start - first, 0), min(rows.stop - first, BLOCK))
        parts.append(_block(counts[first : first + BLOCK], mine, num_tokens, model, own))
    orders, times, noise = (torch.cat(each) for each in zip(*parts, strict=True))
    mine = slice(rows.start, rows.stop)
    total = int(counts.sum()) * model.head.batch_multiplier
    return Draws(masks_of(counts[mine], orders), drop[mine], times, noise, total)


def _block(
    counts: Tensor, mine: slice, num_tokens: int, model: ModelConfig, own: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Orders, times and noise of some rows of a block that is drawn as a whole."""
    head = model.head
    orders = random_orders(len(counts), num_tokens, own)
    ends = [0, *(counts.cumsum(0) * head.batch_multiplier).tolist()]
    times = draw_times(head, ends[-1], own)
    noise = torch.randn(ends[-1], model.token_dim, generator=own)
    start, stop = ends[mine.start], ends[mine.stop]
    shared = head.noises_per_time
    return orders[mine], times[start // shared : stop // shared], noise[start:stop]


def pinned(tensor: Tensor) -> Tensor:
    """In memory that a GPU reads by itself."""
    return tensor if tensor.is_pinned() else tensor.pin_memory()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copied without waiting for what the device is doing."""
    if device.type == "cuda":
        return pinned(tensor).to(device, non_blocking=True)
    return tensor.to(device)
