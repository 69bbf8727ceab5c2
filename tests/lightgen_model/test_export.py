"""`python -m lightgen_model.export`: a checkpoint becomes a folder for others."""

import sys
from pathlib import Path

import pytest

from lightgen_model import checkpoint
from lightgen_model.__main__ import load
from lightgen_model.export import main
from tests.lightgen_model.conftest import small, student

MODELS = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes"
ABOUT = {name: str(MODELS / name) for name in ("autoencoder", "text_encoder")}


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
    main()


def test_a_checkpoint_becomes_a_folder_that_needs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student(small())
    checkpoint.save(tmp_path / "c", model.config, model.state_dict(), ABOUT | {"run": "tiny"})
    call(monkeypatch, "--checkpoint", tmp_path / "c", "--out", tmp_path / "new" / "folder")
    pipe = load(tmp_path / "new" / "folder")
    assert pipe.values == model.config
    assert "- run: tiny" in (tmp_path / "new" / "folder" / "README.md").read_text("utf-8")


def test_what_cannot_be_exported_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for words, sentence in (
        (["--checkpoint", "nowhere", "--out", tmp_path / "o"], "nowhere is no checkpoint"),
        (["--checkpoint", "nowhere", "--out", tmp_path / "file"], "is a file; give a folder"),
        (["--artifacts", tmp_path, "--out", tmp_path / "o"], "no finished checkpoint under"),
    ):
        with pytest.raises(SystemExit, match=sentence) as caught:
            call(monkeypatch, *words)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "o").exists()
