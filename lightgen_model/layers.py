"""The blocks of the student: self-attention, late text cross-attention, MLP, position tables.

Shapes: B samples, N query tokens, S key tokens, C width, H heads, G grid side.
Source: lightgen.md 1.2-1.6; ViT blocks as in arXiv 2010.11929, offset tables as in DINO.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NORM_EPS = 1e-6
# DINO's interpolation offset: the scale (side + 0.1) / base, not the size, sets the sample points.
POSITION_OFFSET = 0.1
# Scores a head up to which plain matmuls serve on the CPU. With every core busy the fused kernel's
# backward pass was several times slower on 16 tokens; on idle cores it takes 0.7-0.8 of the time
# (`tests/benchmarks/attention.py`).
SHORT_ATTENTION = 64 * 64


class Mlp(nn.Module):
    """Linear, erf GELU, linear, with dropout after both."""

    def __init__(self, width: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(F.gelu(self.fc1(x)))))


def attend(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, dropout: float
) -> Tensor:
    """Softmax attention over heads. `keep` (B, S) is True where a key may be seen."""
    mask = None if keep is None else rearrange(keep, "b s -> b 1 1 s")
    short = query.shape[2] * key.shape[2] <= SHORT_ATTENTION
    if short and query.device.type == "cpu":
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        out = F.dropout(scores.softmax(-1), dropout) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return rearrange(out, "b h n d -> b n (h d)")


class HeadNorm(nn.RMSNorm):
    """Root-mean-square norm of each head's queries or keys (arXiv 2302.05442), in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


def head_norm(width: int, num_heads: int, wanted: bool) -> nn.Module:
    return HeadNorm(width // num_heads, NORM_EPS) if wanted else nn.Identity()


class SelfAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_dropout = nn.Dropout(dropout)
        self.query_norm = head_norm(width, num_heads, qk_norm)
        self.key_norm = head_norm(width, num_heads, qk_norm)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        qkv = rearrange(self.qkv(x), "b n (k h d) -> k b h n d", k=3, h=self.num_heads)
        query, key, value = qkv.unbind(0)
        query, key = self.query_norm(query), self.key_norm(key)
        out = attend(query, key, value, keep, self.dropout if self.training else 0.0)
        return self.proj_dropout(self.proj(out))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float, dropout: float, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPS)
        self.attn = SelfAttention(width, num_heads, dropout, qk_norm)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio, dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), keep)
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float, qk_norm: bool = False) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_linear = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.proj_dropout = nn.Dropout(dropout)
        self.query_norm = head_norm(width, num_heads, qk_norm)
        self.key_norm = head_norm(width, num_heads, qk_norm)

    def project(self, text: Tensor) -> Tensor:
        """Keys and values of the text, heads apart: (2, B, H, S, C / H)."""
        both = rearrange(self.kv(text), "b s (k h d) -> k b h s d", k=2, h=self.num_heads)
        if isinstance(self.key_norm, nn.Identity):
            return both
        key, value = both.unbind(0)
        return torch.stack([self.key_norm(key), value])

    def forward(self, x: Tensor, keys_values: Tensor, keep: Tensor | None) -> Tensor:
        key, value = keys_values.unbind(0)
        if key.shape[2] == 1 and keep is None and not self.training:
            # Softmax over one key is one: what is read does not depend on the query.
            out = rearrange(value, "b h 1 d -> b 1 (h d)")
        else:
            query = rearrange(self.query_linear(x), "b n (h d) -> b h n d", h=self.num_heads)
            dropout = self.dropout if self.training else 0.0
            out = attend(self.query_norm(query), key, value, keep, dropout)
        return self.proj_dropout(self.proj(out))


class CrossBlock(nn.Module):
    """Image tokens read the text. No self-attention between image tokens.

    The residual carries the normalised query, not the raw stream (lightgen.md 1.2, step 8): with
    both branches zeroed the block returns LayerNorm(x).
    """

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float, dropout: float, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.normq = nn.LayerNorm(width, NORM_EPS)
        self.normkv = nn.LayerNorm(width, NORM_EPS)
        self.attn = CrossAttention(width, num_heads, dropout, qk_norm)
        self.norm2 = nn.LayerNorm(width, NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio, dropout)

    def project(self, text: Tensor) -> Tensor:
        """What the block keeps of a text (B, S, C); it is the same for every query."""
        return self.attn.project(self.normkv(text))

    def forward(self, x: Tensor, keys_values: Tensor, keep: Tensor | None) -> Tensor:
        """Queries (B, N, C) read a projected text."""
        query = self.normq(x)
        x = query + self.attn(query, keys_values, keep)
        return x + self.mlp(self.norm2(x))


class Projection(nn.Module):
    """Three linears with SiLU between (REPA, arXiv 2410.06940): hidden states to another width."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.silu(self.fc2(F.silu(self.fc1(x)))))


def interpolate_positions(table: Tensor, height: int, width: int) -> Tensor:
    """Stretch a position table (1, G*G, C) to a grid of height x width: (1, height*width, C).

    Bicubic in float32, differentiable, with DINO's offset scale; unchanged at its own size.
    """
    side = round(table.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return table
    grid = rearrange(table.float(), "1 (h w) c -> 1 c h w", h=side)
    scale = ((height + POSITION_OFFSET) / side, (width + POSITION_OFFSET) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert grid.shape[-2:] == (height, width), (grid.shape, height, width)
    return rearrange(grid, "1 c h w -> 1 (h w) c").to(table.dtype)
