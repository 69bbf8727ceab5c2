"""States in eight bits: their error, their bits, and what has no scale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightgen_model.text_encoder import TextEncoder
from pipeline.quantization import group_of, quantized, relative_errors, restored
from pipeline.shapes.grammar import sample_captions

FOLDER = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes" / "text_encoder"
FLOATS = st.floats(-1e4, 1e4, width=32)


def error_of(states: torch.Tensor) -> float:
    return float(relative_errors(states[None], restored(*quantized(states))[None])[0])


@given(arrays(np.float32, (3, 256), elements=FLOATS))
def test_no_state_is_off_by_more_than_half_a_step(given_states):
    states = torch.from_numpy(given_states)
    off = (restored(*quantized(states)) - states).abs()
    step = (states.abs().view(3, 2, 128).amax(2) / 127).repeat_interleave(128, 1)
    # A scale is rounded to float16 itself, which moves the largest value by up to 2^-11 of it.
    assert (off <= 1.001 * (step * (0.5 + 127 * 2**-11) + 127 * 2**-24)).all()


def test_the_stored_bits_are_worked_out_by_hand():
    values, scales = quantized(torch.tensor([[127.0, -63.4, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    assert values.tolist() == [[127, -63, 0, 0], [0, 0, 0, 0]]
    assert scales.tolist() == [[1.0], [0.0]]
    assert (values.dtype, scales.dtype) == (torch.int8, torch.float16)


def test_a_loud_channel_costs_its_group_alone():
    states = torch.randn(20, 512, generator=torch.Generator().manual_seed(0))
    quiet = error_of(states)
    states[:, 7] *= 300
    stored = restored(*quantized(states))
    rest = slice(128, None)
    assert float(relative_errors(states[None, :, rest], stored[None, :, rest])[0]) < 1.1 * quiet
    assert 0.004 < quiet < 0.009


def test_real_states_of_the_small_t5_are_off_by_less_than_one_percent():
    encoder = TextEncoder.load(FOLDER, length=20)
    captions = sample_captions(64, 0)
    states, lengths = encoder.encode(captions)
    errors = relative_errors(states, restored(*quantized(states)))
    halves = relative_errors(states, states.bfloat16().float())
    assert errors.shape == lengths.shape
    assert 0.004 < errors.mean() < 0.01
    assert 0.001 < halves.mean() < 0.003  # what bfloat16 costs beside it


def test_infinity_and_what_is_no_number_leave_a_scale_that_is_not_finite():
    for bad in (float("inf"), float("nan"), 3e38):
        assert not quantized(torch.full((1, 64), bad))[1].isfinite().all()


@pytest.mark.parametrize(("width", "group"), [(4096, 128), (2304, 128), (128, 128), (96, 32)])
def test_groups_divide_every_width(width, group):
    assert group_of(width) == group
