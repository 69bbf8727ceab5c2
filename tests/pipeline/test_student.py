"""The student as the flow sees it: found or not, its command, its loss, curve and samples."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import student
from pipeline.checkpoints import CURVE, SAMPLES
from pipeline.tables import Manifest, Snapshot

UPSTREAM = {
    "features": Manifest(
        "features",
        "c" * 64,
        {
            name: Snapshot(f"{name}-ab12", 1, "tag", "c" * 64, rows, ())
            for name, rows in (("text", 7), ("features_64", 9), ("features_128", 4))
        },
    )
}


@pytest.fixture
def trained(debug_run, train):
    """A run whose training left a log, a point of the curve and its strip of samples."""
    config = debug_run()
    manifest = train(config, UPSTREAM)
    place = student.folder(config, UPSTREAM).path
    (place / "phase-0-64").mkdir()
    rows = [{"step": step, "loss": 1 / step} for step in (1, 2)]
    write_rows(place / "phase-0-64" / "log.jsonl", *rows)
    (place / SAMPLES).mkdir()
    strip = np.zeros((64, 2 * 64, 3), np.uint8)
    Image.fromarray(strip).save(place / SAMPLES / "seen-8.png")
    shown = {"strip": "seen-8.png", "prompts": ["a red circle", "a blue square"]}
    scores = {"counting": 0.5, "mean": 0.5}
    write_rows(place / CURVE, {"samples": 8, "image_size": 64, "scores": scores, **shown})
    return config, manifest


def write_rows(path: Path, *rows: Mapping[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_finished_student_is_found_for_its_values_and_inputs_alone(trained, debug_run):
    config, manifest = trained
    assert student.find(config, UPSTREAM) == manifest
    assert list(manifest.checkpoints) == ["untrained", "student"]
    for folder in manifest.checkpoints.values():
        assert (Path(config.root) / folder / "model.safetensors").is_file()
    assert student.find(debug_run({"student.phases.0.steps": 3}), UPSTREAM) is None
    other = {"features": Manifest("features", "d" * 64)}
    assert student.find(config, other) is None


def test_how_often_it_logs_saves_and_looks_changes_no_weights(trained, debug_run):
    _, manifest = trained
    seldom = debug_run(
        {f"student.{name}_every": 9 for name in ("log", "checkpoint", "sample")}
        | {"student.num_processes": 2, "student.accumulation": 2, "student.strategy": "fsdp2"}
        | {"student.keep_last": 3, "student.checkpoint_activations": True}
    )
    assert student.find(seldom, UPSTREAM) == manifest


def test_every_trained_row_is_counted_and_the_curve_is_shown(trained):
    config, manifest = trained
    seen = student.describe(config, UPSTREAM, manifest)
    assert (seen.rows_in, seen.kept, seen.rejected) == (13, 13, 0)
    assert seen.facts["steps"] == "2 at 64 px"
    assert seen.facts["weights sha256"] == manifest.content
    assert [plot.title for plot in seen.plots] == ["Training loss", "Learning curve at 64 px"]
    assert seen.tables[0].rows == (("8", "64", "0.50", "0.50"),)
    assert all(b"<svg" in plot.svg for plot in seen.plots)
    assert [picture.title for picture in seen.pictures] == ["Samples by step"]


def test_a_strip_that_is_gone_is_not_shown(trained):
    config, manifest = trained
    (student.folder(config, UPSTREAM).path / SAMPLES / "seen-8.png").unlink()
    assert student.describe(config, UPSTREAM, manifest).pictures == ()


def test_the_command_trains_in_as_many_processes_as_the_run_says(debug_run, tmp_path):
    debug_run()
    run = tmp_path / "debug.yaml"
    command = student.command(run, tmp_path / "upstream.json")
    assert command[1:] == [
        *("-m", "pipeline.pretraining", "--config", str(run)),
        *("--upstream", str(tmp_path / "upstream.json")),
    ]


def test_a_start_is_what_its_folder_holds(trained, debug_run, tmp_path):
    config, _ = trained
    final = student.folder(config, UPSTREAM).final
    copy = tmp_path / "copy"
    shutil.copytree(final, copy)
    one, same = (debug_run({"student.start": str(place)}) for place in (final, copy))
    assert student.folder(one, UPSTREAM) == student.folder(same, UPSTREAM)
    assert student.folder(one, UPSTREAM) != student.folder(config, UPSTREAM)
    (copy / "config.json").write_text("{}")
    assert student.folder(same, UPSTREAM) != student.folder(one, UPSTREAM)


def test_buckets_make_another_student_and_none_the_same_as_ever(debug_run) -> None:
    plain, bucketed = debug_run().student, debug_run({"student.text_buckets": 4}).student
    assert "text_buckets" not in student.slice_of(plain)
    assert student.slice_of(bucketed) == {**student.slice_of(plain), "text_buckets": 4}
