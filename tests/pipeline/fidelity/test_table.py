"""Fidelity in a run: a row a checkpoint and measure, and nothing where it is not asked for."""

from pathlib import Path

import pytest

from pipeline import evaluation
from pipeline.config import FidelityConfig
from pipeline.fidelity.table import Drawn, grid, missing
from pipeline.images import png
from pipeline.tables import read
from tests.pipeline.geneval.conftest import clip_folder, noise

__all__ = ["clip_folder"]  # a fixture


@pytest.fixture
def above(debug_run, walk, train):
    def build(**fidelity: object):
        config = debug_run({"evaluation.fidelity": fidelity or None})
        upstream = walk(config)
        return config, {**upstream, "student": train(config, upstream)}

    return build


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(noise(50, 40, number)))
    return tmp_path / "photos"


def test_every_checkpoint_is_measured_and_a_rerun_measures_nothing(
    above, make, reference: Path, clip_folder: Path
) -> None:
    weights = str(clip_folder)
    config, upstream = above(cmmd=weights, clip_score=weights, reference=str(reference), size=32)
    manifest, made = make(evaluation, config, upstream)
    assert len(made) == 2 * 2  # drawn and measured, two checkpoints
    assert make(evaluation, config, upstream) == (manifest, [])
    assert evaluation.find(config, upstream) == manifest
    rows = read(config.root, manifest.snapshots["measures"]).to_pylist()
    assert [(row["checkpoint"], row["measure"]) for row in rows] == [
        (name, measure) for name in ("untrained", "student") for measure in ("CMMD", "CLIP score")
    ]
    drawn = manifest.snapshots["evaluate"].rows // 2
    assert {row["pictures"] for row in rows} == {drawn}
    assert [row["reference_pictures"] for row in rows[:2]] == [4, 0]
    assert rows[0]["extractor"].startswith("clip-tiny@")
    seen = evaluation.describe(config, upstream, manifest)
    (told,) = [each for each in seen.tables if each.title.startswith("Distance from")]
    assert told.header[2:4] == ("untrained", "student")
    assert len(told.rows) == 2


def test_without_it_there_is_no_such_table(above, make) -> None:
    config, upstream = above()
    manifest, _ = make(evaluation, config, upstream)
    assert list(manifest.snapshots) == ["evaluate"]
    folder = evaluation._folder(config)
    pictures = Drawn(folder, manifest.snapshots["evaluate"].shards, 16)
    images = [image for part in pictures.images() for image in part]
    assert len(images) == len(pictures.captions()) == manifest.snapshots["evaluate"].rows
    assert {image.size for image in images} == {(16, 16)}
    assert pictures.fingerprint() != Drawn(folder, pictures.shards, None).fingerprint()


def test_what_is_missing_is_told_with_its_place() -> None:
    values = FidelityConfig(reference="nowhere", inception="none.pth", cmmd="some/clip")
    told = " ".join(missing(values))
    assert "evaluation.fidelity.reference: the folder nowhere is not there" in told
    assert "evaluation.fidelity.inception: none.pth is not there" in told
    assert "hf download some/clip" in told


def test_a_table_has_a_column_a_checkpoint() -> None:
    import pyarrow as pa

    from pipeline.fidelity.table import MEASURES

    shared = ["as it is", "bilinear", "inception@1", "f", "r", "too few"]
    rows = [
        ["shapes", name, "FID", value, 100, 50, *shared]
        for name, value in (("student", 12.3456), ("aligned", 10.0))
    ]
    table = pa.Table.from_pylist(
        [dict(zip(MEASURES.schema.names, row, strict=True)) for row in rows], MEASURES.schema
    )
    assert grid(table).header[2:4] == ("student", "aligned")
    assert grid(table).rows == (
        ("shapes", "FID", "12.346", "10.000", "100", "50", "bilinear", "inception@1", "too few"),
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({}, "nothing to measure"), ({"cmmd": "c"}, "FID and CMMD need a folder")],
)
def test_a_config_that_asks_for_nothing_whole_is_named(values, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        FidelityConfig(**values)
