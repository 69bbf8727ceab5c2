"""Checkpoints: a round trip, and a clear word about damage."""

from pathlib import Path

import pytest
import torch

from lightgen_model import checkpoint
from lightgen_model.config import debug
from lightgen_model.model import LightGen


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    checkpoint.save(tmp_path / "c", model.config, model.state_dict(), {"stage": "student"})
    return tmp_path / "c"


def test_a_checkpoint_comes_back(saved: Path) -> None:
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    loaded = checkpoint.load(saved, expected=debug())
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in model.state_dict().items())
    assert checkpoint.read_config(saved)[1] == {"stage": "student"}
    assert not loaded.training


def test_equal_weights_are_equal_bytes(saved: Path, tmp_path: Path) -> None:
    model = checkpoint.load(saved)
    checkpoint.save(tmp_path / "d", model.config, model.state_dict(), {"stage": "student"})
    for name in (checkpoint.WEIGHTS, checkpoint.CONFIG):
        assert (tmp_path / "d" / name).read_bytes() == (saved / name).read_bytes()


def test_another_config_is_named(saved: Path) -> None:
    other = debug().model_copy(update={"cross_depth": 3})
    with pytest.raises(ValueError, match="another config: cross_depth 2 against 3"):
        checkpoint.load(saved, expected=other)


def test_a_truncated_file_is_named(saved: Path) -> None:
    weights = saved / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(saved)


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no checkpoint: config\.json is missing"):
        checkpoint.load(tmp_path)
