"""LightGen's student: a masked-autoregressive transformer with late text and a diffusion head.

In:    normalised latents (B, c, h, w), T5 states (B, L, E) with their lengths (B,).
Out:   losses of the masked tokens; or conditions, from which `sampling.py` draws tokens.

Shapes: B samples, N tokens, M masked tokens of a sample at most, L text tokens, C width,
D token dims, T rows in the head (masked tokens of the batch, times the batch multiplier).
Source: arXiv 2503.08619; order and sizes as lightgen.md 1.2-1.6.

Every stage works on the tokens that need it alone: the encoder on visible ones, cross blocks and
head on those to be predicted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from lightgen_model.config import ModelConfig
from lightgen_model.head import DiffusionHead
from lightgen_model.layers import (
    NORM_EPS,
    Block,
    CrossBlock,
    Projection,
    interpolate_positions,
)

INIT_STD = 0.02


class Text(NamedTuple):
    """Aligned text: what the cross blocks read."""

    states: Tensor  # (B, L, C)
    keep: Tensor | None  # (B, L), True where a key may be seen; None: everywhere


class ProjectedText(NamedTuple):
    """Keys and values of a text in every cross block; the same for all queries and iterations."""

    keys_values: tuple[Tensor, ...]  # a block (2, B, H, L, C / H)
    keep: Tensor | None  # (B, L)


class Positions(NamedTuple):
    """The three tables, stretched to a grid: (1, N, C) each."""

    encoder: Tensor
    decoder: Tensor
    cross: Tensor


@dataclass(frozen=True)
class Places:
    """Some tokens of each sample. Rows with fewer are filled up with other tokens of the sample, so
    that no token occurs twice in a row and a scatter never meets itself."""

    index: Tensor  # (B, M)
    real: Tensor | None  # (B, M), False where the row is filled up; None: nowhere
    flat: Tensor | None = None  # (T,) where `real` is True in B * M; None: everywhere


class Split(NamedTuple):
    """A mask as places. Made on the host and copied, it keeps `forward` from waiting."""

    visible: Places
    masked: Places

    @staticmethod
    def of(mask: Tensor) -> "Split":
        # Where nothing is visible one place is filled up: every tensor then has a gradient, which
        # training on several processes relies on.
        return Split(gather_index(~mask, at_least=1), gather_index(mask))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Split":
        """Every tensor changed, such as copied to a device."""

        def changed(places: Places) -> Places:
            real, flat = (None if x is None else change(x) for x in (places.real, places.flat))
            return Places(change(places.index), real, flat)

        return Split(changed(self.visible), changed(self.masked))


@dataclass(frozen=True)
class TokenLosses:
    """One row a masked token and draw."""

    mse: Tensor  # (T,)
    vb: Tensor  # (T,), zero for a flow head
    sample: Tensor  # (T,) which sample of the batch the row belongs to
    repa: Tensor | None = None  # (B,) mean cosine distance to the vision model's features

    def per_sample(self, num_samples: int) -> Tensor:
        """Mean squared error over each sample's masked tokens, (B,). DPO's error."""
        zeros = self.mse.new_zeros(num_samples)
        total = zeros.index_add(0, self.sample, self.mse)
        return total / zeros.index_add(0, self.sample, torch.ones_like(self.mse))


class LightGen(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, tokens = config.width, config.grid(config.base_image_size) ** 2
        shape = (width, config.num_heads, config.mlp_ratio, config.dropout, config.qk_norm)

        self.encoder_in = nn.Linear(config.token_dim, width)
        self.encoder_in_norm = nn.LayerNorm(width, NORM_EPS)
        self.encoder_positions = nn.Parameter(torch.empty(1, tokens, width))
        self.encoder_blocks = nn.ModuleList(Block(*shape) for _ in range(config.encoder_depth))
        self.encoder_norm = nn.LayerNorm(width, NORM_EPS)

        self.decoder_in = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder_positions = nn.Parameter(torch.empty(1, tokens, width))
        self.decoder_blocks = nn.ModuleList(Block(*shape) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(width, NORM_EPS)

        self.text_in = nn.Linear(config.text_width, width)
        self.text_out = nn.Linear(width, width)
        self.aligner_blocks = nn.ModuleList(Block(*shape) for _ in range(config.aligner_depth))
        self.aligner_norm = nn.LayerNorm(width, NORM_EPS)
        self.null_text = nn.Parameter(torch.empty(1, 1, width))

        self.cross_in = nn.Linear(width, width)
        self.cross_positions = nn.Parameter(torch.empty(1, tokens, width))
        self.cross_blocks = nn.ModuleList(CrossBlock(*shape) for _ in range(config.cross_depth))
        self.cross_norm = nn.LayerNorm(width, NORM_EPS)

        self.head = DiffusionHead(config.head, config.token_dim, width)
        if config.repa:
            self.repa = Projection(width, config.repa.hidden, config.repa.width)

    def init_weights(self, generator: torch.Generator) -> "LightGen":
        """Xavier linears with zero biases; zero modulations and output, so the head starts at 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                zero = name.endswith(("modulation", "final.linear"))
                if zero:
                    nn.init.zeros_(module.weight)
                elif ".time_embed." in name:
                    nn.init.normal_(module.weight, std=INIT_STD, generator=generator)
                else:
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("_positions", "mask_token", "null_text")):
                nn.init.normal_(parameter, std=INIT_STD, generator=generator)
        return self

    def forward(
        self,
        latents: Tensor,
        states: Tensor,
        lengths: Tensor,
        mask: Tensor | Split,
        *,
        times: Tensor,
        noise: Tensor,
        drop_text: Tensor | None = None,
        features: Tensor | None = None,
    ) -> TokenLosses:
        """Losses of the masked tokens. `noise` (T, D) holds one draw a row, `times`
        (T / head.noises_per_time,) one time a row.

        T is the number of masked tokens times `head.batch_multiplier`, as `num_draws` tells.
        `features` (B, N, F) are a vision model's, for a student with `repa`.
        """
        tokens = self.patchify(latents)  # (B, N, D)
        positions = self.positions(self.grid_of(latents))
        visible, masked = Split.of(mask) if isinstance(mask, Tensor) else mask  # (B, V), (B, M)
        states_by_block: list[Tensor] | None = None if features is None else []
        encoded = self.encode(tokens, visible, positions)
        hidden = self.decode(encoded, visible, positions, states_by_block)
        text = self.project(self.align(states, lengths, drop_text))
        conditions = self.condition(hidden, text, masked.index, positions)  # (B, M, C)
        multiplier = self.config.head.batch_multiplier
        targets = _real(take(tokens, masked.index), masked)  # (T / multiplier, D)
        mse, vb = self.head.losses(targets, _real(conditions, masked), times, noise)
        sample = torch.arange(len(latents), device=latents.device)[:, None]
        sample = _real(sample.expand_as(masked.index), masked)
        repa = None
        if states_by_block is not None and features is not None:
            repa = self.align_features(states_by_block, features)
        return TokenLosses(mse, vb, repeat(sample, "t -> (t k)", k=multiplier), repa)

    def align_features(self, states_by_block: Sequence[Tensor], features: Tensor) -> Tensor:
        """Mean cosine distance (B,) of projected states to features (B, N, F), at all tokens."""
        if self.config.repa is None:
            raise ValueError("features given to a student without repa")
        projected = self.repa(states_by_block[self.config.repa.block - 1])
        return 1 - F.cosine_similarity(projected.float(), features.float(), dim=-1).mean(1)

    def num_draws(self, mask: Tensor) -> int:
        """Rows T that `forward` wants in `noise` for this mask; `head.draw_times` makes times."""
        return int(mask.sum()) * self.config.head.batch_multiplier

    def patchify(self, latents: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, N, D); raster order, channel-major inside a token."""
        p = self.config.patch_size
        return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)

    def unpatchify(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, D) -> (B, c, h, w)."""
        p = self.config.patch_size
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=grid[0], p=p, q=p)

    def grid_of(self, latents: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens of latents (B, c, h, w)."""
        p = self.config.patch_size
        return latents.shape[2] // p, latents.shape[3] // p

    def positions(self, grid: tuple[int, int]) -> Positions:
        """The tables for rows and columns of tokens; a sampler asks once."""
        tables = (self.encoder_positions, self.decoder_positions, self.cross_positions)
        return Positions(*(interpolate_positions(table, *grid) for table in tables))

    def encode(self, tokens: Tensor, visible: Places, positions: Positions) -> Tensor:
        """Visible tokens of (B, N, D) alone, (B, V, C)."""
        index, keep = visible.index, visible.real
        x = self.encoder_in(take(tokens, index)) + _rows(positions.encoder, index)
        x = self.encoder_in_norm(x)  # (B, V, C)
        if index.shape[1]:
            # A sample with nothing visible attends its padding; its output is never used.
            keep = None if keep is None else keep | ~keep.any(1, keepdim=True)
            for block in self.encoder_blocks:
                x = block(x, keep)
        return self.encoder_norm(x)

    def decode(
        self,
        encoded: Tensor,
        visible: Places,
        positions: Positions,
        states_by_block: list[Tensor] | None = None,
    ) -> Tensor:
        """Visible tokens at their places, the mask token elsewhere; no text. (B, N, C).

        What leaves each block is put into `states_by_block`.
        """
        num_tokens = positions.decoder.shape[1]
        x = self.mask_token.expand(len(encoded), num_tokens, -1).to(encoded.dtype)
        x = put(x, visible, self.decoder_in(encoded).to(x.dtype)) + positions.decoder
        for block in self.decoder_blocks:
            x = block(x)
            if states_by_block is not None:
                states_by_block.append(x)
        return self.decoder_norm(x)

    def align(self, states: Tensor, lengths: Tensor, drop: Tensor | None = None) -> Text:
        """T5 states (B, L, E) -> text the cross blocks read; dropped samples get the null text."""
        keep: Tensor | None = None
        if not self.config.attend_padding:
            keep = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        x = self.text_out(F.gelu(self.text_in(states), approximate="tanh"))
        for block in self.aligner_blocks:
            x = block(x, keep)
        x = self.aligner_norm(x)
        if drop is not None:
            # Equal keys make softmax a plain mean, so the repeated null text is one key.
            x = torch.where(drop[:, None, None], self.null_text.to(x.dtype), x)
        return Text(x, keep)

    def null(self, num_samples: int) -> Text:
        """The text of 'no caption': one key (lightgen.md section 0, item 2c)."""
        return Text(self.null_text.expand(num_samples, -1, -1), None)

    def project(self, text: Text) -> ProjectedText:
        """Each cross block's keys and values of a text; once a picture when drawing."""
        blocks = cast("Iterable[CrossBlock]", self.cross_blocks)
        return ProjectedText(tuple(block.project(text.states) for block in blocks), text.keep)

    def condition(
        self, hidden: Tensor, text: ProjectedText, index: Tensor, positions: Positions
    ) -> Tensor:
        """Cross stage for the tokens at `index` (B, M) of (B, N, C) alone: (B, M, C)."""
        x = self.cross_in(take(hidden, index)) + _rows(positions.cross, index)
        for block, keys_values in zip(self.cross_blocks, text.keys_values, strict=True):
            x = block(x, keys_values, text.keep)
        return self.cross_norm(x)


def gather_index(chosen: Tensor, at_least: int = 0) -> Places:
    """Places of the chosen tokens (B, N) bool, in raster order. Waits where `chosen` is.

    A row has `at_least` so many places, filled up where fewer are chosen.
    """
    counts = chosen.sum(1)
    least, most = torch.stack(counts.aminmax()).tolist()
    most = max(most, at_least)
    index = chosen.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    if least == most:
        return Places(index, None)
    real = torch.arange(most, device=chosen.device) < counts[:, None]
    return Places(index, real, real.flatten().nonzero()[:, 0])


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, N, C) at index (B, M): (B, M, C)."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[-1]))


def put(x: Tensor, places: Places, rows: Tensor) -> Tensor:
    """x (B, N, D) with `rows` (B, M, D) at their places; what fills a row up changes nothing."""
    if places.real is not None:
        rows = torch.where(places.real[:, :, None], rows, take(x, places.index))
    return x.scatter(1, places.index[:, :, None].expand_as(rows), rows)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table (1, N, C) at index (B, M): (B, M, C)."""
    return F.embedding(index, table[0])


def _real(x: Tensor, places: Places) -> Tensor:
    """(B, M, ...) -> (T, ...), without what fills rows up."""
    return x.flatten(0, 1) if places.flat is None else x.flatten(0, 1)[places.flat]
