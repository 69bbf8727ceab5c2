"""Published checkpoints become folders of ours."""

import sys
from pathlib import Path

import pytest
import torch

from lightgen_model import checkpoint
from lightgen_model.convert import convert, main
from lightgen_model.published import to_published
from tests.lightgen_model.golden import filled, released


def test_converting_writes_a_checkpoint_folder_and_again_the_same_bytes(tmp_path: Path) -> None:
    path = released(tmp_path / "checkpoint-20.pth")
    for folder in ("one", "two"):
        convert(path, tmp_path / folder, num_heads=4)
    model = checkpoint.load(tmp_path / "one")
    assert all(torch.equal(to_published(model.state_dict())[k], v) for k, v in filled().items())
    about = checkpoint.read_config(tmp_path / "one")[1]
    assert (about["source"], about["weights"]) == ("checkpoint-20.pth", "model")
    for name in (checkpoint.WEIGHTS, checkpoint.CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, words)])
    main()


def test_the_command_converts_averaged_weights_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = released(tmp_path / "c.pth")
    call(monkeypatch, path, "--out", tmp_path / "ema", "--ema", "--num-heads", 4)
    given = to_published(checkpoint.load(tmp_path / "ema").state_dict())
    assert torch.equal(given["mask_token"], 2 * filled()["mask_token"])
    assert checkpoint.read_config(tmp_path / "ema")[1]["weights"] == "model_ema"


def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"lightgen_model\.convert: .*give num_heads"):
        call(monkeypatch, released(tmp_path / "c.pth"), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
