"""`python -m lightgen_model`: which checkpoint draws, and what it says when none can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightgen_model import checkpoint
from lightgen_model.__main__ import main, newest
from lightgen_model.config import debug
from lightgen_model.model import LightGen

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "infra" / "models" / "shapes"
ABOUT = {name: str(MODELS / name) for name in ("autoencoder", "text_encoder")}


def finished(artifacts: Path, name: str, second: int) -> Path:
    """A folder that looks like a finished checkpoint of this age."""
    folder = artifacts / "tiny" / "checkpoints" / name / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    os.utime(folder / "config.json", (second, second))
    return folder


@pytest.fixture
def drawer(tmp_path: Path) -> Path:
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    checkpoint.save(tmp_path / "c", model.config, model.state_dict(), ABOUT)
    return tmp_path / "c"


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    few = ["--iterations", "2", "--head-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["lightgen_model", *few, *map(str, words)])
    main()


def test_the_newest_aligned_checkpoint_draws_and_else_the_newest_student(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no finished checkpoint under .*: run `make distill`"):
        newest(tmp_path)
    finished(tmp_path, "student-a", 10)
    student = finished(tmp_path, "student-b", 30)
    assert newest(tmp_path) == student
    aligned = finished(tmp_path, "dpo-a", 20)
    (tmp_path / "tiny" / "checkpoints" / "dpo-b" / "final").mkdir(parents=True)  # not finished
    assert newest(tmp_path) == aligned
    finished(tmp_path, "dpo-c", 15)
    assert newest(tmp_path) == aligned


def test_it_draws_pictures_side_by_side(
    drawer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = [tmp_path / "new" / f"{name}.png" for name in "ab"]
    for path in out:
        call(monkeypatch, "a red circle", "--checkpoint", drawer, "--out", path, "--num", 2)
    assert Image.open(out[0]).size == (2 * 64, 64)
    assert out[0].read_bytes() == out[1].read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--size", 72], "72 must be a multiple of the token size 16"),
        (["--iterations", 17], "17 iterations for 16 tokens; allowed: 1 to 16"),
        (["--image", "nowhere.png", "--mask", "nowhere.png"], "No such file .*nowhere.png"),
        (["--image", ROOT / "README.md"], "cannot identify image file"),
        (["--num", 0], "--num: 0; at least 1"),
        (["--checkpoint", "nowhere"], "nowhere is no checkpoint"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_what_cannot_be_drawn_is_one_sentence(
    drawer: Path, monkeypatch: pytest.MonkeyPatch, words: list[object], sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence) as caught:
        call(monkeypatch, "a red circle", "--checkpoint", drawer, *words)
    assert "\n" not in str(caught.value)


def test_captions_and_sides(drawer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "p.png"
    words = ["a red circle", "blue", "--checkpoint", drawer, "--num", 2, "--out", out]
    call(monkeypatch, *words, "--height", 32)
    assert Image.open(out).size == (4 * 64, 32)


def test_a_part_is_drawn_anew(
    drawer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = Image.new("RGB", (48, 32), "red"), Image.new("L", (48, 32))
    mask.paste(255, (0, 0, 16, 16))
    image.save(tmp_path / "image.png")
    mask.save(tmp_path / "mask.png")
    words = ["--image", tmp_path / "image.png", "--mask", tmp_path / "mask.png"]
    call(monkeypatch, "blue", "--checkpoint", drawer, *words, "--out", tmp_path / "p.png")
    drawn = Image.open(tmp_path / "p.png")
    assert drawn.crop((16, 0, 48, 32)).getcolors() == [(32 * 32, (255, 0, 0))]
    assert drawn.crop((0, 0, 16, 16)).getcolors() != [(16 * 16, (255, 0, 0))]


@pytest.mark.parametrize("module", ["__main__", "export", "page"])
def test_help_and_a_missing_checkpoint_do_not_wait_for_torch(tmp_path: Path, module: str) -> None:
    missing = {
        "__main__": ["x"],
        "export": ["--out", str(tmp_path / "out")],
        "page": [],
    }[module]
    code = (
        "import sys\n"
        f"from lightgen_model.{module} import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    for words, status in ((["--help"], 0), ([*missing, "--artifacts", str(tmp_path)], 1)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.split()[-1]) == (status, "False"), done.stderr
