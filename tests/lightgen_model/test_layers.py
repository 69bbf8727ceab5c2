"""Blocks: the unusual residual, the two attention paths, the position tables."""

import pytest
import torch
from torch import nn

from lightgen_model import layers
from lightgen_model.layers import (
    Block,
    CrossAttention,
    CrossBlock,
    SelfAttention,
    interpolate_positions,
)


def test_a_cross_block_without_branches_returns_its_normed_query() -> None:
    block = CrossBlock(32, 4, 4.0, 0.0)
    for layer in (block.attn.proj, block.mlp.fc2):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x, text = torch.randn(2, 5, 32), block.project(torch.randn(2, 3, 32))
    assert torch.equal(block(x, text, None), block.normq(x))
    assert not torch.allclose(block(x, text, None), x)


def test_positions_are_stretched_as_published() -> None:
    table = torch.arange(256.0).view(1, 256, 1)
    wide = interpolate_positions(table, 32, 32)[0, :, 0]
    row0 = [-1.794821, -1.499698, -1.025830, -0.397502, 0.007348, 0.599545]
    assert wide[:6].tolist() == pytest.approx(row0, abs=2e-4)
    assert wide[32:34].tolist() == pytest.approx([2.927153, 3.222276], abs=2e-4)
    assert wide[-3:].tolist() == pytest.approx([255.816528, 256.309906, 256.635742], abs=2e-4)


def test_positions_of_their_own_size_are_unchanged() -> None:
    table = torch.randn(1, 16, 8)
    assert interpolate_positions(table, 4, 4) is table


def test_rows_and_columns_are_not_swapped() -> None:
    columns = torch.arange(16.0).repeat(16).view(1, 256, 1)
    out = interpolate_positions(columns, 8, 16)[0, :, 0].view(8, 16)
    assert torch.allclose(out[0], out[7], atol=1e-4)
    assert (out[0].diff() > 0).all()


def test_short_and_fused_attention_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x = SelfAttention(32, 4, 0.0), torch.randn(3, 7, 32)
    keep = torch.arange(7) < torch.tensor([[7], [3], [1]])
    short = attention(x, keep)
    monkeypatch.setattr(layers, "SHORT_ATTENTION", 0)
    assert torch.allclose(short, attention(x, keep), atol=1e-6)


def test_masked_keys_do_not_matter() -> None:
    attention, x = SelfAttention(32, 4, 0.0), torch.randn(1, 6, 32)
    keep = torch.arange(6)[None] < 4
    other = x.clone()
    other[:, 4:] = 100.0
    assert torch.allclose(attention(x, keep)[:, :4], attention(other, keep)[:, :4], atol=1e-6)


@pytest.mark.parametrize("block", [Block, CrossBlock])
def test_normed_heads_bound_the_scores_and_are_absent_when_off(block: type[nn.Module]) -> None:
    plain, normed = block(32, 4, 4.0, 0.0), block(32, 4, 4.0, 0.0, True)
    extra = set(normed.state_dict()) - set(plain.state_dict())
    assert extra == {"attn.query_norm.weight", "attn.key_norm.weight"}
    assert set(plain.state_dict()) < set(normed.state_dict())
    assert normed.attn.query_norm.weight.shape == (8,)  # type: ignore[union-attr]


def test_the_scale_of_queries_and_keys_does_not_matter_once_normed() -> None:
    attention, x = SelfAttention(32, 4, 0.0, qk_norm=True), torch.randn(2, 5, 32)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[:64] *= 50
        attention.qkv.bias[:64] *= 50
    assert torch.allclose(before, attention(x), atol=1e-5)
    cross, text = CrossAttention(32, 4, 0.0, qk_norm=True), torch.randn(2, 3, 32)
    read = cross(x, cross.project(text), None)
    with torch.no_grad():
        for linear in (cross.query_linear.weight, cross.query_linear.bias):
            linear *= 50
        cross.kv.weight[:32] *= 50
        cross.kv.bias[:32] *= 50
    assert torch.allclose(read, cross(x, cross.project(text), None), atol=1e-5)
