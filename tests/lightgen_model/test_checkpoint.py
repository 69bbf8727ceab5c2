"""Checkpoints: a round trip, and a clear word about damage."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

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


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_file_is_named(saved: Path, kept: int) -> None:
    weights = saved / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(saved)


def test_a_missing_weights_file_is_named(saved: Path) -> None:
    (saved / checkpoint.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("text_in.bias", None, r"1 missing \(text_in\.bias\)"),
        ("spare", torch.ones(2), r"1 unknown \(spare\)"),
        ("text_in.bias", torch.ones(3), r"of another shape \(text_in\.bias \(3,\) for \(32,\)"),
        ("text_in.bias", torch.ones(32, dtype=torch.int8), r"not floating \(text_in\.bias"),
        ("text_in.bias", torch.full((32,), float("nan")), r"NaN or infinite \(text_in\.bias"),
        ("text_in.bias", torch.full((32,), float("-inf")), r"NaN or infinite \(text_in\.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    saved: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    file = saved / checkpoint.WEIGHTS
    weights = {key: value.clone() for key, value in load_file(file).items()}
    weights = {key: value for key, value in weights.items() if key != name}
    save_file(weights | ({} if tensor is None else {name: tensor}), file)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved)


@pytest.mark.parametrize("text", ["", "{", '{"about": {}}', '{"model": {"wide": 3}, "about": {}}'])
def test_a_damaged_config_is_named(saved: Path, text: str) -> None:
    (saved / checkpoint.CONFIG).write_text(text)
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        checkpoint.load(saved)


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no checkpoint: config\.json is missing"):
        checkpoint.load(tmp_path)
