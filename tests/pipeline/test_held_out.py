"""Looks while aligning: captions that no round pairs, scores, and the best weights."""

import pytest
import torch

from lightgen_model.model import LightGen
from pipeline import held_out, rounds
from pipeline.checkpoints import read_rows
from pipeline.held_out import HeldOut, held_out_captions, in_turn
from pipeline.subjects import subjects

WATCH = {"dpo.watch_every": 1, "dpo.watch_captions": 10, "dpo.keep": "best"}


@pytest.fixture
def above(debug_run, walk):
    def build(overrides=None):
        config = debug_run({**WATCH, **(overrides or {})})
        return config, walk(config)

    return build


def weights_of(config, seed: int):
    model = LightGen(config.student.model).init_weights(torch.Generator().manual_seed(seed))
    return model.state_dict()


@pytest.mark.parametrize("shares", [{}, {"position": 2, "counting": 1}])
def test_no_round_pairs_what_is_held_out(above, shares):
    config, upstream = above({"dpo.rounds": 2, "preferences.task_shares": shares})
    last = rounds.at(config, 2)
    chosen = set(held_out_captions(last, upstream))
    assert len(chosen) == 10
    for number in (1, 2):
        paired = {one.caption_id for one in subjects(rounds.at(config, number), upstream)}
        assert not chosen & paired
    greedy, _ = above({"dpo.watch_captions": 1000, "preferences.task_shares": shares})
    with pytest.raises(ValueError, match=r"watch_captions: 1000, but \d+ captions are in no pair"):
        held_out_captions(greedy, upstream)


def test_the_best_look_is_kept_and_the_first_of_equals(above, tmp_path, monkeypatch):
    config, upstream = above()
    looker = HeldOut.build(config, upstream, tmp_path, "cpu")
    scores = iter([0.2, 0.6, 0.6, 0.1])
    monkeypatch.setattr(held_out, "score_of", lambda *_: score)
    for step in range(4):
        score = next(scores)
        looker.look(step, weights_of(config, step))
    (step, best), expected = held_out.best_weights(tmp_path), weights_of(config, 1)
    assert step == 1
    assert all(torch.equal(best[name], expected[name]) for name in expected)
    held_out.drop_weights(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_look_is_scored_and_shown_and_the_same_each_time(above, tmp_path):
    config, upstream = above()
    looker = HeldOut.build(config, upstream, tmp_path, "cpu")
    looker.look(0, weights_of(config, 0))
    looker.look(5, weights_of(config, 0))
    looker.look(5, weights_of(config, 0))  # a training that goes on from before
    first, second = read_rows(tmp_path / "curve.jsonl")
    assert first["score"] == second["score"] > 0
    assert len(first["prompts"]) == held_out.NUM_SHOWN
    strips = [(tmp_path / "samples" / row["strip"]).read_bytes() for row in (first, second)]
    assert strips[0] == strips[1]


def test_queues_take_turns():
    assert in_turn([["a", "b", "c"], ["x"], ["y", "z"]]) == ["a", "x", "y", "b", "z", "c"]
    assert in_turn([]) == []
