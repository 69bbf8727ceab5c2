"""The program of alignment on a debug run: all its values together, and what it leaves."""

import json
import shutil

import pytest
import torch

from lightgen_model.checkpoint import read_config
from pipeline import aligning, alignment, preferences
from pipeline.aligning import align_student, named, too_far
from pipeline.checkpoints import read_rows
from pipeline.states import saved

EVERYTHING = {
    "dpo.loss": "ipo",
    "dpo.anchor": 0.1,
    "dpo.weighting": "noise",
    "dpo.beta": 10.0,
    "dpo.beta_end": 1.0,
    "dpo.balance": "task",
    "dpo.draws_per_pair": 2,
    "dpo.reference_errors": "table",
    "dpo.watch_every": 2,
    "dpo.watch_captions": 9,
    "dpo.keep": "best",
    "dpo.steps": 4,
    "dpo.checkpoint_every": 2,
    "dpo.keep_last": 5,
    "dpo.log_every": 1,
    "dpo.tracker": "none",
}


@pytest.fixture
def above(debug_run, walk, make, train):
    def build(overrides):
        config = debug_run(overrides)
        upstream = walk(config)
        upstream["student"] = train(config, upstream)
        upstream["preferences"], _ = make(preferences, config, upstream)
        return config, upstream

    return build


def test_with_every_value_it_ends_and_says_what_it_did(above):
    config, upstream = above(EVERYTHING)
    align_student(config, upstream)
    place = alignment.folder(config, upstream)
    assert [row["step"] for row in read_rows(place.path / "curve.jsonl")] == [0, 2, 4]
    _, about = read_config(place.final)
    seen = alignment.describe(config, upstream, alignment.find(config, upstream))
    assert seen.facts["kept"].startswith(f"the weights after step {about['step']}, score")
    assert seen.facts["loss"] == "ipo + 0.1 x winners' error"
    titles = [plot.title for plot in seen.plots]
    assert titles[2:] == ["Reward margin, and distance from the reference", "Held-out captions"]
    assert seen.pictures[0].jpeg[:2] == b"\xff\xd8"
    assert not list(place.path.glob("best-*"))


class Killed(BaseException):
    pass


def killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_killed_alignment_ends_with_the_same_bytes(above, keep, monkeypatch):
    config, upstream = above({**EVERYTHING, "dpo.keep": keep})
    place = alignment.folder(config, upstream)
    with monkeypatch.context() as patch:
        patch.setattr(aligning, "finish", killed)
        with pytest.raises(Killed):
            align_student(config, upstream)
    saved(place.path)[-1].unlink()  # as if it had died before the last step
    align_student(config, upstream)
    once = (place.final / "model.safetensors").read_bytes()
    shutil.rmtree(place.path)
    align_student(config, upstream)
    assert (place.final / "model.safetensors").read_bytes() == once
    assert [row["step"] for row in read_rows(place.path / "curve.jsonl")] == [0, 2, 4]


def test_it_stops_where_the_winners_get_worse(above):
    changes = {"dpo.max_winner_rise": 1e-9, "dpo.log_every": 1, "dpo.tracker": "none"}
    rate = {"dpo.optimizer": {"learning_rate": 0.05}, "dpo.steps": 30, "dpo.beta": 5000.0}
    config, upstream = above({**changes, **rate})
    align_student(config, upstream)
    log = read_rows(alignment.folder(config, upstream).path / "log.jsonl")
    assert log[-1]["step"] < 30
    assert log[-1]["winner_drift"] > 0
    seen = alignment.describe(config, upstream, alignment.find(config, upstream))
    assert seen.facts["steps"] == f"{log[-1]['step']} of 30, stopped by max_winner_rise"


def test_the_rise_is_measured_against_the_references_error():
    row = {"winner_drift": 0.02, "winner_error": 0.22}
    assert too_far(None, row) == too_far(0.11, row) == ""
    assert too_far(0.09, row) == (
        "the winners' error is 10.0% above the reference's, dpo.max_winner_rise 9.0%"
    )


def test_values_that_came_later_leave_what_was_trained_found(debug_run):
    values = alignment.slice_of(debug_run().dpo)
    assert set(values) == {"beta", "steps", "batch_size", "optimizer", "seed"}
    changed = alignment.slice_of(debug_run(EVERYTHING).dpo)
    assert {"loss", "anchor", "balance", "keep", "watch_every", "draws_per_pair"} <= set(changed)
    assert "keep" not in alignment.slice_of(debug_run({"dpo.watch_every": 5}).dpo)
    assert json.dumps(values) != json.dumps(changed)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dpo.reference_errors": "table"}, "table needs draws_per_pair of 1 or more"),
        ({"dpo.keep": "best"}, "best needs watch_every"),
        ({"dpo.loss": "ppo"}, "dpo.loss: Input should be 'dpo', 'ipo', 'kto' or 'sft'"),
    ],
)
def test_values_that_do_not_fit_are_named(debug_run, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        debug_run(changes)


def test_a_processs_cpu_is_the_cpu():
    assert named(torch.device("cpu", 0)) == "cpu"
    assert named(torch.device("cuda", 1)) == "cuda:1"
