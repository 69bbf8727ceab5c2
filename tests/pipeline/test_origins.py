"""From whatever is asked for back to the captions."""

from pathlib import Path

import pytest

from pipeline.ledger import newest
from pipeline.origins import trace
from pipeline.tables import read, take
from tests.pipeline.conftest import run_whole

DATA = ["captions", "images", "verdicts", "features", "student"]


def test_the_student_came_from_no_preferences(whole):
    assert list(trace(Path(whole.root), "untrained").entries) == DATA
    assert list(trace(Path(whole.root), "student").entries) == DATA


def test_a_picture_says_its_caption_seed_teacher_licence_and_shard(whole):
    root = Path(whole.root)
    snapshot = newest(root, stage="images").tables["images"]
    (row,) = take(root, snapshot, [40], ["image_id", "caption_id", "caption", "seed"]).to_pylist()
    picture, caption = trace(root, row["image_id"]).rows
    assert picture.number == 40
    assert {key: picture.values[key] for key in row} == row
    assert (picture.values["teacher"], picture.values["licence"]) == ("shapes", "MIT")
    assert picture.shard in snapshot.shards
    assert caption.values["caption_id"] == row["caption_id"]
    assert caption.values["place"]


def test_a_pair_and_a_caption_are_found_by_their_id(whole):
    root = Path(whole.root)
    for stage, table, key in (
        ("preferences", "preferences", "pair_id"),
        ("captions", "captions", "caption_id"),
    ):
        snapshot = newest(root, stage=stage).tables[table]
        name = read(root, snapshot, [key])[key][3].as_py()
        found = trace(root, name)
        assert found.last.stage == stage
        assert found.rows[0].values[key] == name


def test_a_score_says_its_share_and_leaves_out_what_came_after(whole):
    root = Path(whole.root)
    aligned = trace(root, "aligned/counting")
    assert list(aligned.entries) == [*DATA, "preferences", "dpo", "evaluate"]
    assert aligned.facts["pictures"] == "6"
    assert float(aligned.facts["share of correct pictures"]) >= 0
    assert list(trace(root, "student/mean").entries) == [*DATA, "evaluate"]


def test_a_shard_of_a_grown_table_names_who_made_it_first(whole, debug_run):
    root = Path(whole.root)
    first = newest(root, stage="images")
    run_whole(debug_run({"images.max_captions": {128: 20}}), "images")
    old = trace(root, read(root, first.tables["images"], ["image_id"])["image_id"][0].as_py())
    assert old.last.name != first.name
    assert old.rows[0].made_by.name == first.name


def test_what_is_nowhere_is_named(whole):
    with pytest.raises(ValueError, match="called 'nobody'; the last are"):
        trace(Path(whole.root), "nobody")
