"""States in eight bits: their error, their bits, and what has no scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.quantization import group_of, quantized, relative_error, restored

FLOATS = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, (3, 256), elements=FLOATS))
def test_no_state_is_off_by_more_than_half_a_step(states):
    values, scales = quantized(states)
    step = np.abs(states).reshape(3, 2, 128).max(axis=2).repeat(128, axis=1) / 127
    # A scale is rounded to float16 itself, which moves the largest value by up to 2^-11 of it.
    allowed = step * (0.5 + 127 * 2**-11) + 127 * 2**-24
    assert (np.abs(restored(values, scales) - states) <= allowed * 1.001).all()


def test_a_loud_channel_costs_its_group_alone():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((20, 512)).astype(np.float32)
    quiet = relative_error(states, restored(*quantized(states)))
    states[:, 7] *= 300
    rest = slice(128, None)
    assert relative_error(states[:, rest], restored(*quantized(states))[:, rest]) < 1.1 * quiet
    assert 0.004 < quiet < 0.008


def test_zeros_stay_zeros_and_infinity_is_named():
    values, scales = quantized(np.zeros((2, 64), np.float32))
    assert not restored(values, scales).any()
    assert relative_error(np.zeros((2, 64), np.float32), restored(values, scales)) == 0
    with pytest.raises(ValueError, match="beyond int8 scales"):
        quantized(np.full((1, 64), np.inf, np.float32))
    with pytest.raises(ValueError, match="beyond int8 scales"):
        quantized(np.full((1, 64), np.nan, np.float32))


@pytest.mark.parametrize(("width", "group"), [(4096, 128), (2304, 128), (128, 128), (96, 32)])
def test_groups_divide_every_width(width, group):
    assert group_of(width) == group
