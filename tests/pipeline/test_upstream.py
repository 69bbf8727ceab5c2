"""What stands above a stage is found on disk, or named with the command that makes it."""

import pytest

from pipeline.upstream import STAGES, resolve


def test_the_stages_above_are_found_for_the_runs_values(debug_run, walk, train):
    config = debug_run()
    upstream = walk(config)
    upstream["student"] = train(config, upstream)
    assert resolve(config, "captions") == {}
    assert resolve(config, "verdicts") == {n: upstream[n] for n in ("captions", "images")}
    assert resolve(config, "preferences") == upstream


def test_the_first_stage_that_is_missing_is_named_with_its_command(debug_run, walk):
    config = debug_run()
    walk(config, "images")
    with pytest.raises(ValueError, match="prefect deployment run verdicts/debug"):
        resolve(config, "dpo")
    other = debug_run({"images.teacher.error_rate": 0.5})
    with pytest.raises(ValueError, match="dpo of run 'debug' needs images, which is not made"):
        resolve(other, "dpo")


def test_an_unknown_stage_is_named(debug_run):
    with pytest.raises(ValueError, match="no stage is called 'pictures'"):
        resolve(debug_run(), "pictures")


def test_the_stages_stand_in_the_order_of_the_data():
    names = [stage.STAGE for stage in STAGES]
    assert names == [
        "captions", "images", "verdicts", "features", "student", "preferences", "dpo", "evaluate"
    ]  # fmt: skip
