"""Preferences by a student of random weights: every comparison is a pair or says why not."""

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from lightgen_model.config import ModelConfig
from pipeline import preferences
from pipeline.drawing import checkpoint_folder, draw, encode
from pipeline.encoders import autoencoder
from pipeline.subjects import subjects, teachers
from pipeline.tables import read
from pipeline.tasks import task_of
from pipeline.verdicts import accepted, decoded


@pytest.fixture
def above(debug_run, walk, train):
    """The run and all that preferences read."""
    config = debug_run()
    upstream = walk(config)
    return config, {**upstream, "student": train(config, upstream)}


def rows_of(config, manifest, table="preferences"):
    return read(config.root, manifest.snapshots[table])


def test_each_comparison_is_a_pair_or_has_a_reason(above, make):
    config, upstream = above
    manifest, _ = make(preferences, config, upstream)
    samples, pairs = (rows_of(config, manifest, name) for name in ("samples", "preferences"))
    assert len(samples) == 12 * 2
    assert len(pairs) == 12 * (2 + 1)
    good = accepted(config.verdicts, samples).tolist()
    over_student = [row for row in pairs.to_pylist() if row["kind"] == "teacher_over_student"]
    assert [row["keep"] for row in over_student] == [not fine for fine in good]
    for row in pairs.to_pylist():
        assert row["keep"] == (row["reason"] == "")
        assert (row["winner"] is None) == (row["loser"] is None) == (not row["keep"])
        assert len(row["winner"] or row["loser"] or b"\0" * 2048) == 2 * 16 * 8 * 8
    assert len(set(pairs["pair_id"].to_pylist())) == len(pairs)
    seen = preferences.describe(config, upstream, manifest)
    assert (seen.rows_in, seen.kept) == (36, sum(pairs["keep"].to_pylist()))
    assert seen.pictures[0].jpeg[:2] == b"\xff\xd8"


def test_the_winner_is_the_teachers_accepted_picture_as_the_vae_sees_it(above, make):
    config, upstream = above
    manifest, _ = make(preferences, config, upstream)
    pairs = rows_of(config, manifest)
    row = next(row for row in pairs.to_pylist() if row["keep"] and row["winner_from"] == "teacher")
    moments = read(config.root, upstream["features"].snapshots["features_64"]).to_pylist()
    flat = next(one["moments"] for one in moments if one["caption_id"] == row["caption_id"])
    vae = autoencoder(config.features, "cpu")
    mean = vae.mean(torch.tensor(flat).view(1, 32, 8, 8)).half().numpy()
    assert np.array_equal(np.frombuffer(row["winner"], np.float16), mean.ravel())
    assert decoded(row["winner_image"]).size == (64, 64)


def test_the_teachers_latents_are_the_same_from_means_as_from_moments(above, debug_run, walk):
    config, upstream = above
    small = debug_run({"features.latents": "means", "features.text_states": "int8"})
    both = [
        teachers(each, {**upstream, **walk(each)}, subjects(each, upstream)[:3])
        for each in (config, small)
    ]
    latents = [{name: one.latents for name, (one,) in contenders.items()} for contenders in both]
    assert latents[0] == latents[1]


def test_a_samples_latents_are_what_the_vae_reads_from_its_picture(above, make):
    config, upstream = above
    manifest, _ = make(preferences, config, upstream)
    rows = rows_of(config, manifest, "samples").to_pylist()[:10]  # one batch was ten rows
    latents = encode(config, [decoded(row["image"]) for row in rows])
    for row, latent in zip(rows, latents, strict=True):
        assert np.array_equal(np.frombuffer(row["latents"], np.float16), latent.ravel())


def test_a_rerun_draws_nothing_and_another_margin_neither(above, make, debug_run):
    config, upstream = above
    manifest, made = make(preferences, config, upstream)
    assert len(made) == 3
    assert preferences.find(config, upstream) == manifest
    assert make(preferences, config, upstream) == (manifest, [])
    strict = debug_run({"preferences.min_margin": 0.9})
    again, _ = make(preferences, strict, upstream)
    assert again.snapshots["samples"] == manifest.snapshots["samples"]
    assert again.snapshots["preferences"].table != manifest.snapshots["preferences"].table
    table = rows_of(strict, again)
    kinds = zip(table["kind"].to_pylist(), table["reason"].to_pylist(), strict=True)
    assert {reason for kind, reason in kinds if kind == "best_over_worst"} == {"tie"}


def test_the_captions_are_chosen_by_themselves_and_were_accepted(above):
    config, upstream = above
    chosen = subjects(config, upstream)
    assert len(chosen) == 12
    encoded = read(config.root, upstream["features"].snapshots["features_64"])
    assert {one.caption_id for one in chosen} <= set(encoded["caption_id"].to_pylist())
    assert all(one.pictures[0].score > 0.5 for one in chosen)


def test_a_checkpoint_of_another_config_is_named(above, debug_run):
    config, upstream = above
    other = debug_run({"student.model.width": 64})
    folder = checkpoint_folder(config, upstream["student"], "student")
    assert isinstance(other.student.model, ModelConfig)
    with pytest.raises(ValueError, match="of another config: width 32 against 64"):
        list(
            draw(
                other,
                folder,
                ["a red circle"],
                [1],
                image_size=64,
                sampling=config.preferences.sampling,
            )
        )


def test_no_row_is_lost_between_the_two_tables(above, make):
    config, upstream = above
    manifest, _ = make(preferences, config, upstream)
    samples = rows_of(config, manifest, "samples")
    pairs = rows_of(config, manifest)
    over_student = pairs.filter(pc.equal(pairs["kind"], "teacher_over_student"))
    assert over_student["caption_id"].to_pylist() == samples["caption_id"].to_pylist()


def test_values_that_came_later_leave_the_tables_of_before_found(debug_run):
    """The names are those of a time that knew neither scorer nor weight nor rules."""
    only = {"preferences.pairs": ["best_over_worst"]}
    before = preferences._folders(debug_run(only))["preferences"].name
    assert before == "preferences-15698c30ddbc3b40"
    for change in (
        {"preferences.scorer": {"judge": {"kind": "shapes"}}},
        {"preferences.alignment_weight": 1.0},
        {"preferences.min_margin": 0.2},
        {"preferences.pairs": ["teacher_over_student"]},
        {"preferences.pairs": ["good_over_bad"]},
    ):
        assert preferences._folders(debug_run({**only, **change}))["preferences"].name != before


def test_other_shares_of_tasks_are_other_pairs_and_an_unasked_task_is_named(above, debug_run):
    config, upstream = above
    plain = [one.caption_id for one in subjects(config, upstream)]
    asked = debug_run({"preferences.task_shares": {"position": 1.0}})
    chosen = subjects(asked, upstream)
    assert [one.caption_id for one in chosen] != plain
    assert task_of(chosen[0].caption) == "position"
    assert preferences._inputs(asked, upstream) != preferences._inputs(config, upstream)
    with pytest.raises(ValueError, match="task_shares: all of them are 0"):
        debug_run({"preferences.task_shares": {"position": 0}})


def test_pictures_of_equal_seeds_and_another_scorer(debug_run, walk, train, make):
    """Every accepted picture of the teacher meets the sample of its seed."""
    changes = {
        "preferences.pairs": ["same_seed"],
        "preferences.seed": 5,
        "preferences.scorer": {"judge": {"kind": "shapes"}, "min_quality": 0.9},
        "images.seeds_per_caption": 2,
    }
    config = debug_run(changes)
    upstream = walk(config)
    upstream["student"] = train(config, upstream)
    manifest, _ = make(preferences, config, upstream)
    pairs = rows_of(config, manifest).to_pylist()
    pictures = {one.caption_id: len(one.pictures) for one in subjects(config, upstream)}
    assert max(pictures.values()) == 2
    assert len(pairs) == sum(pictures.values())
    assert {row["winner_from"] for row in pairs} == {"teacher", "teacher 1"}
    samples = rows_of(config, manifest, "samples").to_pylist()
    drawn = {
        row["seed"] for row in read(config.root, upstream["images"].snapshots["images"]).to_pylist()
    }
    assert {row["seed"] for row in samples} <= drawn


def test_a_set_of_pictures_has_no_seeds_to_share(debug_run):
    source = {"paths": ["x.tar"], "format": "webdataset", "licence": "MIT"}
    teacher = {"kind": "pictures", "name": "set", **source}
    with pytest.raises(ValueError, match="same_seed needs a teacher that draws from seeds"):
        debug_run({"preferences.pairs": ["same_seed"], "images.teacher": teacher})
