"""Inpainting: the known part is untouched, the rest is a picture's own."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightgen_model.config import SamplingConfig
from lightgen_model.inpainting import blend, inpaint, tokens_to_redraw
from lightgen_model.model import LightGen, put
from lightgen_model.sampling import draw_orders, places, plan, sample
from tests.lightgen_model.conftest import small, student, texts

TOLERANCE = 1e-5  # of the largest value, as in test_sampling.py


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())


def few(**values: Any) -> SamplingConfig:
    return SamplingConfig(**{"num_iterations": 6, "head_steps": 4, "guidance": 2.0} | values)


def latents(num: int, rows: int = 4, columns: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(num, 16, 2 * rows, 2 * columns, generator=generator)


def holes(num: int) -> Tensor:
    """Pixel masks of 64 x 96: none, all, a corner, a pixel, a column of tokens."""
    mask = torch.zeros(5, 64, 96, dtype=torch.bool)
    mask[1] = True
    mask[2, :17, :17] = True
    mask[3, 40, 70] = True
    mask[4, :, 32:48] = True
    return mask[:num]


def test_a_pixel_redraws_its_token_and_one_around() -> None:
    mask = torch.zeros(1, 64, 96)
    mask[0, 16, 31] = 0.1  # row 1, column 1
    redraw = tokens_to_redraw(small(), mask, (64, 96)).view(4, 6)
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[0:3, 0:3] = True
    assert torch.equal(redraw, expected)
    alone = tokens_to_redraw(small(), mask, (64, 96), margin=0).view(4, 6)
    assert alone.nonzero().tolist() == [[1, 1]]


def test_a_mask_of_another_size_is_refused() -> None:
    for shape in ((1, 64, 64), (64, 96), (1, 96, 64)):
        with pytest.raises(ValueError, match=r"mask: shape .* 64 x 96 pixels"):
            tokens_to_redraw(small(), torch.ones(shape), (64, 96))


def test_known_tokens_are_untouched_and_the_rest_is_new(model: LightGen) -> None:
    (states, lengths), known = texts(5), latents(5)
    out = inpaint(model, states, lengths, few(), known=known, mask=holes(5), seeds=[0, 1, 2, 3, 4])
    redraw = tokens_to_redraw(model.config, holes(5), (64, 96))
    before, after = model.patchify(known), model.patchify(out)
    assert torch.equal(after[~redraw], before[~redraw])
    assert not (after[redraw] == before[redraw]).any()
    assert torch.equal(out[0], known[0])  # an empty mask
    assert after.isfinite().all()


def test_a_full_mask_is_plain_drawing(model: LightGen) -> None:
    states, lengths = texts(2)
    mask = torch.ones(1, 64, 96)
    out = inpaint(model, states, lengths, few(), known=latents(2), mask=mask, seeds=[3, 4])
    plain = sample(model, states, lengths, few(), image_size=(64, 96), seeds=[3, 4])
    assert torch.equal(out, plain)


def test_nothing_to_redraw_draws_nothing(model: LightGen) -> None:
    (states, lengths), known = texts(2), latents(2)
    shown: list[int] = []
    out = inpaint(
        model, states, lengths, few(), known=known, mask=torch.zeros(1, 64, 96), seeds=[0, 1],
        on_step=lambda step, num, so_far: shown.append(step),
    )  # fmt: skip
    assert torch.equal(out, known)
    assert shown == []


@pytest.mark.parametrize("kind", ["ddpm", "flow"])
@pytest.mark.parametrize("attend_padding", [False, True])
def test_a_picture_does_not_depend_on_its_batch(kind: str, attend_padding: bool) -> None:
    model = student(small(kind, attend_padding=attend_padding))
    (states, lengths), known, mask = texts(5), latents(5), holes(5)
    values = few(guidance_schedule="linear", last_head_steps=2, num_iterations=12)

    def draw(rows: list[int]) -> Tensor:
        return inpaint(
            model, states[rows], lengths[rows], values,
            known=known[rows], mask=mask[rows], seeds=rows,
        )  # fmt: skip

    together = draw([0, 1, 2, 3, 4])
    for rows in ([2], [3], [4], [3, 1], [0, 4, 2]):
        assert close(draw(rows), together[rows])


@given(st.lists(st.integers(0, 24), min_size=1, max_size=5), st.integers(1, 24))
def test_every_token_to_redraw_is_drawn_once_and_no_other(counts: list[int], most: int) -> None:
    orders = torch.stack([torch.randperm(24) for _ in counts])
    drawn = torch.zeros(len(counts), 24, 1)
    iterations = plan(few(num_iterations=most), counts)
    for now in iterations:
        predicted = places(orders, now.after, now.before)
        drawn = put(drawn, predicted, drawn.gather(1, predicted.index[:, :, None]) + 1)
    for row, count in enumerate(counts):
        assert drawn[row, orders[row, :count], 0].tolist() == [1] * count
        assert drawn[row, orders[row, count:], 0].tolist() == [0] * (24 - count)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 30))
def test_each_picture_keeps_the_schedule_of_its_own_mask(counts: list[int], most: int) -> None:
    together = plan(few(num_iterations=most), counts)
    for row, count in enumerate(counts):
        alone = plan(few(num_iterations=most), [count])
        assert len(alone) == min(count, most)
        assert [(now.before[row], now.after[row]) for now in together[: len(alone)]] == [
            (now.before[0], now.after[0]) for now in alone
        ]
        assert all(now.before[row] == 0 for now in together[len(alone) :])
    assert all(now.before == last.after for last, now in pairwise(together))


def test_orders_begin_with_what_is_redrawn() -> None:
    redraw = torch.rand(3, 20) < 0.4
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    orders = draw_orders(generators, redraw)
    assert orders.sort(dim=1).values.tolist() == [list(range(20))] * 3
    for order, chosen in zip(orders, redraw, strict=True):
        assert chosen[order].tolist() == sorted(chosen.tolist(), reverse=True)


def test_outside_the_mask_pixels_are_the_originals() -> None:
    original, drawn = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 2:4] = True
    out = blend(original, drawn, mask)
    assert torch.equal(out[:, :, 4:], original[:, :, 4:])
    assert torch.equal(out[:, :, 2:4], drawn[:, :, 2:4])
    half = blend(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), torch.full((1, 8, 8), 0.25))
    assert torch.equal(half, torch.full((1, 3, 8, 8), 0.25))
    with pytest.raises(ValueError, match="blend: original"):
        blend(original, drawn, torch.zeros(1, 8, 4))


def test_masks_that_fit_no_picture_are_refused(model: LightGen) -> None:
    states, lengths = texts(3)
    with pytest.raises(ValueError, match="mask: 2 masks for 3 pictures"):
        inpaint(
            model, states, lengths, few(),
            known=latents(3), mask=torch.ones(2, 64, 96), seeds=[0, 1, 2],
        )  # fmt: skip
