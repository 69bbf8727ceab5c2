"""`python -m pipeline.geneval`: a folder scored with real models of random weights, and again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.geneval import __main__ as program
from pipeline.geneval import detector as steps
from pipeline.geneval.__main__ import main
from pipeline.geneval.folders import write_folder
from pipeline.geneval.results import Result, read_results, write_results
from pipeline.geneval.scoring import Scorer
from tests.pipeline.geneval.test_folders import png, requests
from tests.pipeline.geneval.test_results import result


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["geneval", *map(str, arguments)])
    main()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prompts = [(n, request, [png(n), png(n + 10)]) for n, request in enumerate(requests(2))]
    write_folder(tmp_path / "pictures", prompts)
    return tmp_path / "pictures"


@pytest.fixture
def score(
    monkeypatch: pytest.MonkeyPatch, folder: Path, detector_folder: Path, clip_folder: Path
) -> "object":
    monkeypatch.setattr(steps, "SHORT_SIDE", 64)  # of the same steps, in a second
    out = folder.parent / "results.jsonl"

    def run() -> list[Result]:
        weights = ("--detector", detector_folder, "--clip", clip_folder)
        call(monkeypatch, "score", folder, *weights, "--out", out, "--batch", 3)
        return read_results(out)

    return run


def test_a_folder_is_scored_and_every_line_says_by_what(score, capsys) -> None:
    results = score()
    assert [each.filename for each in results] == [
        f"{n:05d}/samples/{m:04d}.png" for n in range(2) for m in range(2)
    ]
    (judge,) = {each.judge for each in results}
    assert judge.startswith("mask2former-tiny@")
    assert " clip-tiny@" in judge
    told = capsys.readouterr().out
    assert "counting" in told
    assert judge in told


def test_a_killed_run_goes_on_where_it_was(score, folder: Path, monkeypatch) -> None:
    score()
    out = folder.parent / "results.jsonl"
    lines = out.read_text().splitlines(keepends=True)
    out.rename(out.with_name("results.jsonl.partial")).write_text("".join(lines[:2]) + lines[2][:9])
    seen = []
    read = Scorer.read
    monkeypatch.setattr(Scorer, "read", lambda *a: (seen.append(len(a[1])), read(*a))[1])
    score()
    again = out.read_text().splitlines(keepends=True)
    assert again[:2] == lines[:2]
    assert [json.loads(line)["filename"] for line in again] == [
        json.loads(line)["filename"] for line in lines
    ]
    assert sum(seen) == 2
    (folder / "00000" / "samples" / "0000.png").write_bytes(png(77))
    score()
    assert sum(seen) == 3  # a picture that changed, and no other


def test_results_are_judged_again_without_a_model(tmp_path, monkeypatch, capsys) -> None:
    write_results(tmp_path / "one.jsonl", [result(n, 0, 0.1 * n) for n in range(10)])
    out = tmp_path / "two.jsonl"
    call(monkeypatch, "rescore", tmp_path / "one.jsonl", "--out", out, "--threshold", 0.75)
    assert [json.loads(line)["correct"] for line in out.read_text().splitlines()] == [
        n >= 8 for n in range(10)
    ]
    assert "single object   0.200" in capsys.readouterr().out


def test_two_files_are_compared_in_pairs(tmp_path, monkeypatch, capsys) -> None:
    for name, least in (("one", 5), ("two", 2)):
        rows = [result(n, 0, 0.9 if n >= least else 0.1) for n in range(10)]
        write_results(tmp_path / f"{name}.jsonl", rows)
    call(monkeypatch, "summary", tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    assert "single_object  +0.300" in capsys.readouterr().out
    write_results(tmp_path / "two.jsonl", [result(11, 0, 0.9)])
    with pytest.raises(SystemExit, match="are of other pictures"):
        call(monkeypatch, "summary", tmp_path / "one.jsonl", tmp_path / "two.jsonl")


def test_a_faulty_folder_is_named_before_a_model_is_loaded(folder, monkeypatch) -> None:
    monkeypatch.setattr(program, "_scorer", lambda *_: pytest.fail("a model was loaded"))
    weights = ("--detector", "d", "--clip", "c")
    (folder / "00001" / "samples" / "0000.png").write_bytes(png()[:100])
    with pytest.raises(SystemExit, match="1 of 4 pictures cannot be read"):
        call(monkeypatch, "score", folder, *weights)
    with pytest.raises(SystemExit, match="has 2 pictures, expected 4"):
        call(monkeypatch, "score", folder, *weights, "--images", 4)


def test_help_loads_no_model_library() -> None:
    code = (
        "import sys, pipeline.geneval.__main__; "
        "print([m for m in ('torch', 'transformers', 'open_clip') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
