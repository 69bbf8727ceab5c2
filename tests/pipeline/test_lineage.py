"""Lineage as a person and a machine read it: a page, a graph, JSON, a command."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from pipeline.description import MAX_MARKDOWN_BYTES
from pipeline.ledger import newest
from pipeline.lineage import graph, markdown, to_json
from pipeline.origins import trace

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
