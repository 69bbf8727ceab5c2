"""Inception with random weights through torch-fidelity; the clean resize against PIL's own."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline.fidelity.extractors import Inception, clean, read_weights
from tests.pipeline.geneval.conftest import noise

needs_torch_fidelity = pytest.mark.skipif(
    not find_spec("torch_fidelity"), reason="the extra `fidelity`"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.clip_models import declare_operators

    declare_operators()
    import torch_fidelity

    class Random(torch_fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:
            """Keeps the weights that it was made with."""

    empty = tmp_path_factory.mktemp("inception") / "empty.pth"
    torch.save({}, empty)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = Random("random", ["2048"], str(empty)).state_dict()
    path = empty.with_name("inception.safetensors")
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


@needs_torch_fidelity
def test_features_follow_the_picture_and_not_the_batch(weights: Path) -> None:
    images = [noise(40, 40, n) for n in range(3)] + [noise(64, 48, 3)]
    inception = Inception(weights, batch=2)
    together = inception.features(images)
    assert together.shape == (4, 2048)
    apart = np.concatenate([inception.features([image]) for image in images])
    np.testing.assert_allclose(together, apart, rtol=1e-3, atol=1e-5)
    assert inception.name.startswith("inception-v3-tensorflow@")
    assert "TensorFlow 1" in inception.resize


@needs_torch_fidelity
def test_the_resize_is_told_and_matters(weights: Path) -> None:
    plain, antialiased = Inception(weights), Inception(weights, resize="clean")
    assert plain.name == antialiased.name
    assert "bicubic, antialiased" in antialiased.resize
    large = [noise(600, 600)]
    apart = np.abs(plain.features(large) - antialiased.features(large)).mean()
    assert apart > 0.01 * np.abs(plain.features(large)).mean()


def test_the_clean_resize_is_pils_bicubic_of_each_channel() -> None:
    image = noise(420, 311).point(lambda level: 100 + level // 5)  # no overshoot to cut off
    ours = clean(image)
    assert ours.shape == (299, 299, 3)
    theirs = np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC))
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # PIL rounds between its two passes
    flat = clean(Image.new("RGB", (50, 70), (9, 200, 255)))
    assert (flat == (9, 200, 255)).all()


def test_weights_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"--inception: nowhere\.pth is not there"):
        read_weights(Path("nowhere.pth"))
