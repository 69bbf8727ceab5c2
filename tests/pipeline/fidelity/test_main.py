"""`python -m pipeline.fidelity`: lines that say what they were measured with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.fidelity.__main__ import main
from pipeline.fidelity.measuring import cautions
from tests.pipeline.geneval.conftest import clip_folder, noise

__all__ = ["clip_folder"]  # a fixture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        place = tmp_path / ("one" if number < 3 else "two")
        place.mkdir(exist_ok=True)
        noise(40, 30, number).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"noise {number}")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fidelity", *map(str, arguments)])
    main()


def test_a_line_says_how_many_pictures_which_resize_and_which_weights(
    folder: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "rows.jsonl"
    asked = ("--cmmd", clip_folder, "--clip-score", clip_folder, "--size", 32, "--out", out)
    reference = ("--reference", folder / "two", "--cache", folder / "cache")
    call(monkeypatch, folder / "one", *reference, *asked)
    distance, score = (json.loads(line) for line in out.read_text().splitlines())
    assert (score["measure"], distance["measure"]) == ("CLIP score", "CMMD")
    assert (distance["pictures"], distance["reference_pictures"]) == (3, 3)
    assert distance["preparation"] == "middle square at 32 px"
    assert distance["extractor"].startswith("clip-tiny@")
    assert distance["value"] > 0
    assert 0 <= score["value"] <= 100
    assert len(list((folder / "cache").iterdir())) == 2
    same = ("--reference", folder / "one", "--cache", folder / "cache")
    call(monkeypatch, folder / "one", *same, "--cmmd", clip_folder, "--size", 32, "--out", out)
    assert json.loads(out.read_text().splitlines()[-1])["value"] == pytest.approx(0, abs=1e-6)


def test_what_is_asked_wrongly_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="nothing to measure: give inception"):
        call(monkeypatch, folder / "one")
    with pytest.raises(SystemExit, match="reference: FID and CMMD need a folder"):
        call(monkeypatch, folder / "one", "--cmmd", "somewhere")
    with pytest.raises(SystemExit, match=r"no such folder"):
        call(monkeypatch, folder / "none", "--clip-score", "somewhere")


def test_few_pictures_are_cautioned_of() -> None:
    assert cautions("FID", 30_000) == []
    assert len(cautions("FID", 5_000)) == 1
    assert len(cautions("FID", 2_048)) == 2
    assert cautions("CMMD", 100) == []


def test_help_loads_no_model_library() -> None:
    code = (
        "import sys, pipeline.fidelity.__main__; "
        "print([m for m in ('torch', 'open_clip', 'torch_fidelity') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
