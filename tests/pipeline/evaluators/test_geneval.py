"""GenEval as an evaluator of a run: prompts, stamps, and pictures judged again from the table."""

import json
from pathlib import Path

import pytest

from pipeline import evaluation
from pipeline.config import GenEvalEvaluator
from pipeline.evaluators import build, identity, missing
from pipeline.geneval import detector as steps
from pipeline.geneval.exporting import export
from pipeline.geneval.folders import read_folder
from pipeline.geneval.prompts import parse
from pipeline.geneval.readings import Reading
from pipeline.tables import read
from tests.pipeline.geneval.conftest import clip_folder, detector_folder

__all__ = ["clip_folder", "detector_folder"]  # fixtures

ROWS = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"},
    {
        "tag": "colors",
        "include": [{"class": "tv", "count": 1, "color": "red"}],
        "prompt": "a red tv",
    },
    {
        "tag": "counting",
        "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}],
        "prompt": "two clocks",
    },
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    lines = [
        {"prompt": row["prompt"], "rewritten": f"{row['prompt']}, in soft light"} for row in ROWS
    ]
    (tmp_path / "rewritten.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def config_of(files: Path, **values: object) -> GenEvalEvaluator:
    given = {"prompts": str(files / "metadata.jsonl"), "detector": "d", "clip": "c", **values}
    return GenEvalEvaluator(kind="geneval", images_per_prompt=2, **given)


def test_raw_and_rewritten_prompts_are_two_evaluators(files: Path) -> None:
    raw = build(config_of(files))
    rewritten = build(config_of(files, rewritten=str(files / "rewritten.jsonl")))
    assert (raw.name, rewritten.name) == ("geneval", "geneval_rewritten")
    assert [prompt.text for prompt in raw.prompts()] == [row["prompt"] for row in ROWS]
    assert [p.text for p in rewritten.prompts()] == [f"{r['prompt']}, in soft light" for r in ROWS]
    for one, other in zip(raw.prompts(), rewritten.prompts(), strict=True):
        assert (one.index, one.task) == (other.index, other.task)


def test_prompts_that_are_not_rewritten_are_named(files: Path) -> None:
    (files / "rewritten.jsonl").write_text(json.dumps({"prompt": "a dog", "rewritten": "x"}) + "\n")
    scorer = build(config_of(files, rewritten=str(files / "rewritten.jsonl")))
    with pytest.raises(ValueError, match="2 of 3 prompts are not rewritten, such as 'a red tv'"):
        scorer.prompts()
    (files / "rewritten.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match=r"rewritten\.jsonl:1: expected an object with prompt"):
        scorer.prompts()


def test_its_identity_is_its_prompts_and_weights_and_not_its_batches(files: Path) -> None:
    config = config_of(files)
    assert identity(config) == identity(config.model_copy(update={"batch_size": 1}))
    assert identity(config) != identity(config.model_copy(update={"detector": "other"}))
    (files / "metadata.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert identity(config) != identity(config_of(files, clip="c2"))


def test_what_is_missing_is_told_with_its_place(tmp_path: Path) -> None:
    told = " ".join(missing(config_of(tmp_path, rewritten="nowhere.jsonl", detector="some/where")))
    assert "evaluation.evaluators.prompts:" in told
    assert "evaluation.evaluators.rewritten: nowhere.jsonl is not there" in told
    assert "hf download some/where" in told


@pytest.fixture
def measured(debug_run, walk, train, make, files, detector_folder, clip_folder, monkeypatch):
    """A run whose pictures real models of random weights have judged."""
    monkeypatch.setattr(steps, "SHORT_SIDE", 64)
    values = config_of(files, detector=str(detector_folder), clip=str(clip_folder)).model_dump()
    rewritten = values | {"rewritten": str(files / "rewritten.jsonl")}
    config = debug_run({"evaluation.evaluators": [values, rewritten]})
    upstream = walk(config)
    upstream |= {"student": train(config, upstream)}
    manifest, _ = make(evaluation, config, upstream)
    return config, upstream, manifest


def test_every_row_is_stamped_and_can_be_judged_again_without_a_model(measured) -> None:
    config, _, manifest = measured
    rows = read(config.root, manifest.snapshots["evaluate"]).to_pylist()
    assert len(rows) == 2 * 2 * 3 * 2  # evaluators, checkpoints, prompts, pictures
    (judge,) = {row["judge"] for row in rows}
    assert "mask2former-tiny@" in judge
    assert "clip-tiny@" in judge
    for row in rows:
        details = json.loads(row["details"])
        request = parse(details["metadata"], "row")
        outcome = Reading.from_json(details, "row").outcome(request)
        assert (outcome.correct, outcome.reason) == (row["correct"], row["reason"])
        assert details["margins"]


def test_raw_and_rewritten_scores_stand_apart_and_beside_the_published(measured) -> None:
    config, upstream, manifest = measured
    scores = evaluation.scores(config, manifest)["student"]
    assert {"geneval/mean", "geneval_rewritten/mean", "geneval/colors"} < set(scores)
    seen = evaluation.describe(config, upstream, manifest)
    beside = [grid for grid in seen.tables if grid.title.startswith("Beside published")]
    assert len(beside) == 2
    assert beside[0].header[1:] == (
        "single_object", "two_object", "counting", "colors", "position", "color_attr", "overall",
    )  # fmt: skip
    assert beside[0].rows[0][0] == "this run, untrained"
    assert ("LightGen, 512 px, DPO", "0.99", "0.65", "0.60", "0.87", "0.22", "0.43", "0.62") in (
        beside[1].rows
    )


def test_its_pictures_are_exported_in_the_official_layout(measured, tmp_path: Path) -> None:
    config, _, manifest = measured
    folder = tmp_path / "out"
    assert export(config, manifest, "student", folder, "geneval") == (3, 3)
    assert export(config, manifest, "student", folder, "geneval") == (0, 3)
    samples = read_folder(folder, images_per_prompt=2)
    assert [sample.request.row for sample in samples[::2]] == ROWS
    rows = read(config.root, manifest.snapshots["evaluate"]).to_pylist()
    ours = [r for r in rows if (r["evaluator"], r["checkpoint"]) == ("geneval", "student")]
    assert [s.path.read_bytes() for s in samples] == [row["image"] for row in ours]
    with pytest.raises(ValueError, match="no pictures of geneval by 'aligned'; there are"):
        export(config, manifest, "aligned", folder, "geneval")
