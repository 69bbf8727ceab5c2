"""Lineage: from whatever is asked for back to the captions."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from pipeline.description import MAX_MARKDOWN_BYTES
from pipeline.ledger import newest
from pipeline.lineage import graph, markdown, to_json, trace
from pipeline.tables import read, take
from tests.pipeline.conftest import run_whole

DATA = ["captions", "images", "verdicts", "features", "student"]


def test_a_checkpoint_by_name_folder_or_file_says_everything_it_came_from(whole):
    root = Path(whole.root)
    place = newest(root, stage="dpo").manifest.checkpoints["aligned"]
    for target in ("aligned", str(root / place), str(root / place / "model.safetensors")):
        found = trace(root, target)
        assert list(found.entries) == [*DATA, "preferences", "dpo"]
        assert found.facts["weights sha256"] == found.last.manifest.content
    page = markdown(trace(root, "aligned"))
    for words in ("images-", "features.text\\_encoder", "preferences.seed", "beta: 5000", "torch"):
        assert words in page
    assert len(page.encode()) < MAX_MARKDOWN_BYTES


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


def test_every_seed_model_and_licence_of_the_values_is_listed(whole):
    found = trace(Path(whole.root), "evaluate")
    assert found.seeds["evaluation.seed"] == 42
    assert found.licences == {"images.teacher.licence": "MIT"}
    assert set(found.models) == {"features.autoencoder", "features.text_encoder"}
    assert json.loads(json.dumps(to_json(found)))["seeds"] == found.seeds


def test_the_graph_is_an_svg_with_every_stage_and_the_same_each_time(whole):
    found = trace(Path(whole.root), "evaluate")
    svg = graph(found)
    words = "".join(ElementTree.fromstring(svg).itertext())
    for stage, entry in found.entries.items():
        assert stage in words
        assert entry.name in words
    assert "teacher: shapes 1 (MIT)" in words
    assert graph(found) == svg


def test_what_is_nowhere_is_named(whole):
    with pytest.raises(ValueError, match="called 'nobody'; the last are"):
        trace(Path(whole.root), "nobody")


def test_the_command_lists_writes_the_graph_and_refuses_an_unknown_target(whole, tmp_path):
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        given = [sys.executable, "-m", "pipeline.lineage", "--root", whole.root, *words]
        return subprocess.run(given, capture_output=True, text=True, check=False)

    assert len(command("--list").stdout.splitlines()) == 8
    done = command("aligned", "--svg", str(tmp_path / "graph.svg"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Where dpo checkpoint aligned comes from")
    assert (tmp_path / "graph.svg").read_bytes().startswith(b"<svg")
    assert command("nobody").returncode == 1
