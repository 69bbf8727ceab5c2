"""What is made already is found as the stages find it, without making anything."""

from pathlib import Path

import pytest

from pipeline import alignment, captions, images, student
from pipeline.already import already
from pipeline.description import description_folder
from pipeline.plan import plan_of
from pipeline.spending import Meter, shard_name


def test_nothing_is_there_of_a_new_run(debug_run):
    found = already(debug_run())
    assert list(found)[:2] == ["captions", "images"]
    assert all(there.share == 0 and not there.whole for there in found.values())


def test_whole_stages_are_told_with_their_counts(debug_run, walk):
    config = debug_run()
    upstream = walk(config)
    described = images.describe(config, upstream, upstream["images"])
    described.save(description_folder(Path(config.root), "images", upstream["images"].content))
    found = already(config)
    assert [name for name, there in found.items() if there.whole] == list(upstream)
    assert found["images"].counted
    assert found["images"].counted.rows_in == described.rows_in
    assert found["captions"].counted is None  # nobody has described it yet
    plan = plan_of(config)
    assert [line.stage for line in plan.lines if line.seconds == 0] == list(upstream)
    assert plan.line("images").rows_in == described.rows_in


def test_shards_of_a_stage_that_was_interrupted_are_counted(debug_run, walk):
    config = debug_run()
    upstream = walk(config, "captions")
    works = images.plan(config, upstream)
    images.make(config, upstream, works[0], lambda rows: None)
    there = already(config)["images"]
    assert (there.rows, there.of) == (works[0].rows, sum(work.rows for work in works))
    assert there.spent is None  # nobody wrote it down
    line = plan_of(config).line("images")
    assert line.seconds == pytest.approx((line.reckoned or 0) * (1 - there.share))


def test_what_the_part_that_is_there_took_is_found(debug_run, walk):
    config = debug_run()
    upstream = walk(config, "captions")
    works = images.plan(config, upstream)
    for number, work in enumerate(works[:2]):
        (shard,) = images.make(config, upstream, work, lambda rows: None)
        if number == 0:
            name = shard_name(shard)
            Meter(Path(config.root), "images", 1, iter([0, 7]).__next__).charge([name])
            assert already(config)["images"].spent == 7
    assert already(config)["images"].spent is None  # of one of the two


def test_more_captions_reuse_the_pictures_of_the_others(debug_run, walk, make):
    walk(debug_run(), "images")
    more = debug_run({"captions.sources.0.num_captions": 90})
    harvested, _ = make(captions, more, {})
    works = images.plan(more, {"captions": harvested})
    there = already(more)["images"]
    assert 0 < there.rows < there.of == sum(work.rows for work in works)


def test_a_training_goes_on_from_its_newest_state(debug_run, walk, train):
    config = debug_run({"student.phases.0.steps": 8})
    upstream = walk(config)
    folder = student.folder(config, upstream).path / student.phase_name(0, 64)
    folder.mkdir(parents=True)
    for step in (2, 6):
        (folder / f"state-{step:09d}.pt").touch()
    relative = student.folder(config, upstream).relative
    Meter(Path(config.root), "student", 2, iter([0, 30]).__next__).charge([relative])
    there = already(config)["student"]
    assert (there.rows, there.of, there.phases, there.spent) == (6, 8, (0.75,), 60)
    assert plan_of(config).line("student").seconds == pytest.approx(20)
    upstream["student"] = train(config, upstream)
    assert already(config)["student"].whole
    assert not already(config)["preferences"].whole
    assert not already(config)[alignment.STAGE].rows


def test_a_source_that_is_not_here_tells_nothing(debug_run, tmp_path):
    away = {"kind": "files", "name": "x", "paths": ["away.txt"], "format": "text", "licence": "MIT"}
    config = debug_run({"captions.sources.0": away})
    assert not any(there.rows or there.whole for there in already(config).values())
