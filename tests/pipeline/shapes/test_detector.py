import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from pipeline.shapes.detector import detect
from pipeline.shapes.grammar import TASKS, specs
from pipeline.shapes.renderer import layout, render
from pipeline.shapes.rules import alignment, check, num_extra

SCENES = [spec for task in TASKS for spec in specs(task)]


def drawn(spec, seed: int, size: int, cell: int = 16, jitter: int = 0, free: bool = False):
    rng = np.random.default_rng(seed)
    placed = layout(spec, rng, size, cell, jitter_pixels=jitter, free_placement=free)
    return placed, render(placed, size)


@settings(max_examples=300)
@given(
    st.sampled_from(SCENES),
    st.integers(0, 2**32),
    st.sampled_from([(64, 16), (128, 16), (96, 12), (128, 32), (256, 64)]),
    st.integers(0, 3),
    st.booleans(),
)
def test_the_detector_is_right_on_everything_drawn(spec, seed, sizes, jitter, free) -> None:
    placed, pixels = drawn(spec, seed, *sizes, jitter, free)
    found = detect(pixels)
    assert check(spec, found).correct
    assert alignment(spec, found) == 1
    assert num_extra(spec, found) == 0
    assert len(found) == len(placed)
    for one in placed:
        (match,) = [
            other
            for other in found
            if abs(other.box.left - one.left) <= one.size / 4
            and abs(other.box.bottom - one.box.bottom) <= one.size / 4
        ]
        assert (match.shape, match.colour) == (one.shape, one.colour)


@given(st.sampled_from(SCENES), st.integers(0, 2**32), st.floats(0, 0.9), st.floats(0, 10))
def test_it_bears_the_blur_and_noise_of_a_decoded_latent(spec, seed, blur, noise) -> None:
    _, pixels = drawn(spec, seed, 64)
    soft = ndimage.gaussian_filter(pixels.astype(float), (blur, blur, 0))
    soft += np.random.default_rng(seed).normal(0, noise, soft.shape)
    assert check(spec, detect(soft.clip(0, 255).astype(np.uint8))).correct


NOISES = {
    "uniform": lambda rng: rng.integers(0, 256, (64, 64, 3)),
    "gaussian": lambda rng: rng.normal(128, 60, (64, 64, 3)),
    "extremes": lambda rng: rng.integers(0, 2, (64, 64, 3)) * 255,
    "fine blur": lambda rng: blurred(rng, 1.5),
    "coarse blur": lambda rng: blurred(rng, 5),
    "blocks": lambda rng: np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))),
}


def blurred(rng: np.random.Generator, sigma: float):
    noise = ndimage.gaussian_filter(rng.normal(size=(64, 64, 3)), (sigma, sigma, 0))
    return noise / noise.std() * 70 + 128


@pytest.mark.parametrize("kind", NOISES)
@given(seed=st.integers(0, 2**32))
def test_noise_holds_nothing(kind: str, seed: int) -> None:
    noise = NOISES[kind](np.random.default_rng(seed))
    assert detect(np.clip(noise, 0, 255).astype(np.uint8)) == []


@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 130), st.integers(1, 130))
def test_one_flat_colour_holds_nothing(colour, height, width) -> None:
    assert detect(np.full((height, width, 3), colour, np.uint8)) == []


def test_a_picture_reads_the_same_as_its_array() -> None:
    _, pixels = drawn(SCENES[-1], 0, 64)
    assert detect(Image.fromarray(pixels)) == detect(pixels)


def test_a_wrong_array_names_its_shape() -> None:
    with pytest.raises(ValueError, match=r"\(64, 64\) float64"):
        detect(np.zeros((64, 64)))
