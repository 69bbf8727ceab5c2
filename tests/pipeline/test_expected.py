"""Rows before they are made: exact small cases, and what nothing tells is said."""

import pytest

from pipeline.config import load_run
from pipeline.expected import Counted, encoded, expected


def test_the_rows_of_a_small_run_by_hand() -> None:
    given = {"captions.sources.0.num_captions": 100, "images.max_captions": {128: 10}}
    rows = expected(load_run("tiny", given))
    assert (rows.captions, rows.kept_captions) == (100, 70)  # 70 % are no repetition
    assert rows.pictures == {64: 140, 128: 20}  # two seeds a caption
    assert rows.accepted == pytest.approx({64: 126, 128: 18})  # a tenth is drawn wrong on purpose
    assert rows.texts == pytest.approx(70 * 0.99)  # both of two are wrong once in a hundred
    assert (rows.samples, rows.comparisons) == (69 * 4, 69)
    assert rows.scored == 3 * 6 * 60 * 4
    assert rows.unknown == ()


def test_counts_of_what_is_made_replace_the_reckoned() -> None:
    made = {"captions": Counted(12_000, 8_443), "verdicts": Counted(18_886, 16_982)}
    rows = expected(load_run("tiny"), made)
    assert (rows.captions, rows.kept_captions) == (12_000, 8_443)
    assert rows.pictures == {64: 16_886, 128: 2_000}
    assert rows.accepted
    assert sum(rows.accepted.values()) == pytest.approx(16_982)
    assert rows.shares["captions"] == "70% kept, counted in its table"


def test_a_source_that_nobody_counted_is_said_not_guessed() -> None:
    rows = expected(load_run("real", {"plan.source_rows": {"parti-prompts": 1632}}))
    assert rows.captions is rows.kept_captions is rows.pictures is rows.texts is None
    (sentence,) = rows.unknown
    assert "dpg-bench, t2i-compbench-3d-spatial" in sentence
    assert "plan.source_rows" in sentence


def test_rows_that_a_run_states_of_every_source_are_summed() -> None:
    rows = expected(load_run("real"))
    assert (rows.captions, rows.kept_captions, rows.unknown) == (8297, 8214, ())


def test_a_selection_bounds_what_nobody_counted() -> None:
    rows = expected(load_run("full"))
    assert (rows.captions, rows.kept_captions, rows.at_most) == (None, 2_000_000, True)
    assert rows.pictures == {512: 2_000_000}
    stated = expected(load_run("full", {"plan.source_rows": {"prompts": 1_000_000}}))
    assert (stated.captions, stated.kept_captions, stated.at_most) == (1_000_000, 950_000, False)
    assert stated.unknown == ()
    many = expected(load_run("full", {"plan.source_rows": {"prompts": 9_000_000}}))
    assert many.kept_captions == 2_000_000


def test_rows_of_an_unknown_source_are_refused() -> None:
    with pytest.raises(ValueError, match=r"plan\.source_rows\.pd13m.*'pd12m'"):
        expected(load_run("full", {"plan.source_rows": {"pd13m": 5}}))


def test_features_are_of_the_smallest_picture_that_is_large_enough() -> None:
    drawn = {64: 5.0, 128: 2.0}
    assert [encoded(load_run("tiny"), drawn, size) for size in (32, 64, 96, 256)] == [5, 5, 2, 0]


def test_every_round_of_alignment_draws_and_compares_and_is_scored() -> None:
    one, two = (expected(load_run("tiny", {"dpo.rounds": count})) for count in (1, 2))
    assert (two.samples, two.comparisons) == (2 * one.samples, 2 * one.comparisons)
    assert one.scored is not None
    assert two.scored is not None
    assert 3 * two.scored == 4 * one.scored
