"""A training is refused before it starts when features and accepted pictures differ."""

from dataclasses import replace

import pytest

from pipeline.completeness import require_features
from pipeline.feature_tables import folders_of
from pipeline.pretraining import train_student
from pipeline.student import folder
from pipeline.tables import read


def without_a_row(config, upstream):
    """The same manifests, but the table at 64 px has lost its third row."""
    manifest = upstream["features"]
    snapshot = manifest.snapshots["features_64"]
    rows = read(config.root, snapshot)
    lost = rows["image_id"][2].as_py()
    table = folders_of(config)["features_64"]
    kept = [batch for part in (rows.slice(0, 2), rows.slice(3)) for batch in part.to_batches()]
    shorter = table.commit([table.write_shard("shorter", kept)], "other")
    snapshots = {**manifest.snapshots, "features_64": shorter}
    return {**upstream, "features": replace(manifest, snapshots=snapshots)}, lost


def test_a_missing_feature_refuses_the_training_with_its_picture(debug_run, walk) -> None:
    config = debug_run({"evaluation": None, "student.tracker": "none"})
    upstream = walk(config)
    require_features(config, upstream)
    fewer, lost = without_a_row(config, upstream)
    with pytest.raises(ValueError, match=rf"features_64: 1 accepted pictures .*\({lost}\)"):
        train_student(config, fewer)
    assert not (folder(config, fewer).path / "phase-0-64").exists()


def test_features_of_a_rejected_picture_are_named(debug_run, walk) -> None:
    config = debug_run()
    upstream = walk(config)
    values = config.verdicts.model_copy(update={"min_alignment": 1.1})
    other = config.model_copy(update={"verdicts": values})
    with pytest.raises(ValueError, match="pictures have features and are not accepted"):
        require_features(other, upstream)


def test_features_that_came_alone_are_trusted(debug_run, walk) -> None:
    config = debug_run()
    require_features(config, {"features": walk(config)["features"]})
