"""DPO as the flow sees it: found or not, its command, its counts and curves."""

import json

import pyarrow.compute as pc
import pytest
import yaml

from pipeline import alignment, preferences
from pipeline.tables import read


@pytest.fixture
def aligned(debug_run, walk, make, train):
    """A run up to DPO, by networks of random weights, and what an alignment would log."""
    config = debug_run()
    upstream = walk(config)
    upstream["student"] = train(config, upstream)
    upstream["preferences"], _ = make(preferences, config, upstream)
    manifest = train(config, upstream, alignment)
    row = {"step": 1, "loss": 0.69, "accuracy": 0.5, "winner_drift": 0.01, "loser_drift": 0.02}
    log = alignment.folder(config, upstream).path / "log.jsonl"
    log.write_text(json.dumps(row) + "\n" + '{"step": 2, "lo')
    return config, upstream, manifest


def test_it_is_found_for_its_values_and_inputs_alone(aligned, debug_run):
    config, upstream, manifest = aligned
    assert alignment.find(config, upstream) == manifest
    assert list(manifest.checkpoints) == ["aligned"]
    seldom = debug_run({"dpo.log_every": 3, "dpo.checkpoint_every": 7})
    assert alignment.find(seldom, upstream) == manifest
    for change in ({"dpo.beta": 7}, {"student.masking": {"min_ratio": 0.5}}):
        assert alignment.find(debug_run(change), upstream) is None
    other = upstream | {"student": upstream["features"]}
    assert alignment.find(config, other) is None


def test_the_pairs_that_were_kept_are_counted_and_the_curves_shown(aligned):
    config, upstream, manifest = aligned
    pairs = read(config.root, upstream["preferences"].snapshots["preferences"], ["keep"])
    seen = alignment.describe(config, upstream, manifest)
    assert seen.rows_in == seen.kept == pc.sum(pairs["keep"]).as_py() > 0
    assert seen.facts["reference"] == upstream["student"].checkpoints["student"]
    assert seen.facts["weights sha256"] == manifest.content
    assert [plot.title for plot in seen.plots] == ["DPO loss", "Accuracy and errors"]
    log = alignment.folder(config, upstream).path / "log.jsonl"
    log.write_text(json.dumps({"step": 1, "loss": 0.2, "winner_drift": 0.01}) + "\n")
    of_sft = alignment.describe(config, upstream, manifest)
    assert [plot.title for plot in of_sft.plots] == ["Loss of the winners"]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_command_is_as_many_processes_as_the_run_says(debug_run, tmp_path, num_processes):
    run = tmp_path / "debug.yaml"
    debug_run()
    values = yaml.safe_load(run.read_text())
    values["dpo"]["num_processes"] = num_processes
    run.write_text(yaml.safe_dump(values))
    command = alignment.command(run, tmp_path / "upstream.json")
    assert "pipeline.aligning" in command
    assert ("--nproc-per-node" in command) == (num_processes == 2)
