"""Captions from real files: normalised, deduplicated over all sources, nothing lost."""

from pathlib import Path

import pytest

from pipeline import captions
from pipeline.config import CaptionsConfig, FileCaptions, RunConfig, ShapesCaptions
from pipeline.tables import Manifest, read


def run_of(root: Path, *files: Path, **values) -> RunConfig:
    sources = [
        FileCaptions(kind="files", name=f.stem, paths=(str(f),), format="text", licence="MIT")
        for f in files
    ]
    return RunConfig(
        name="test", root=str(root), captions=CaptionsConfig(sources=tuple(sources), **values)
    )


def shapes_run(root: Path, number: int) -> RunConfig:
    source = ShapesCaptions(kind="shapes", num_captions=number)
    return RunConfig(
        name="test", root=str(root), captions=CaptionsConfig(sources=(source,), rows_per_shard=150)
    )


def harvest(config: RunConfig) -> tuple[Manifest, list[int]]:
    """The manifest, and the rows that were made for it."""
    made: list[int] = []
    shards = [
        shard
        for work in captions.plan(config, {})
        for shard in captions.make(config, {}, work, made.append)
    ]
    return captions.commit(config, {}, shards), made


def rows_of(config: RunConfig, manifest: Manifest) -> list[dict]:
    return read(config.root, manifest.snapshots["captions"]).to_pylist()


def test_every_row_is_kept_or_has_a_reason_and_the_first_source_wins(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_bytes(b"a red circle\nab\na red  circle\n\xff\xfe\n\n" + b"x" * 60 + b"\n")
    two.write_text("a red circle\na blue square\n")
    config = run_of(tmp_path, one, two, max_characters=50)
    manifest, _ = harvest(config)
    found = [(r["source"], r["place"], r["keep"], r["reason"]) for r in rows_of(config, manifest)]
    assert found == [
        ("one", "one.txt:1", True, ""),
        ("one", "one.txt:2", False, "too short"),
        ("one", "one.txt:3", False, "duplicate"),
        ("one", "one.txt:4", False, "undecodable bytes"),
        ("one", "one.txt:5", False, "no caption"),
        ("one", "one.txt:6", False, "too long"),
        ("two", "two.txt:1", False, "duplicate"),
        ("two", "two.txt:2", True, ""),
    ]
    seen = captions.describe(config, {}, manifest)
    assert (seen.rows_in, seen.kept, seen.rejected) == (8, 2, 6)
    assert sum(seen.reasons.values()) == 6
    assert seen.tables[0].rows[0][:5] == ("one", "MIT", "6", "1", "1")


def test_a_rerun_finds_the_same_table(tmp_path):
    config = shapes_run(tmp_path, 400)
    assert captions.find(config, {}) is None
    manifest, made = harvest(config)
    assert sum(made) == 400
    assert captions.find(config, {}) == manifest
    again, made = harvest(config)
    assert again == manifest
    assert made == []


def test_a_hundred_new_captions_add_a_hundred_rows(tmp_path):
    first, _ = harvest(shapes_run(tmp_path, 400))
    config = shapes_run(tmp_path, 500)
    assert captions.find(config, {}) is None
    second, made = harvest(config)
    assert sum(made) == 100
    old, new = first.snapshots["captions"], second.snapshots["captions"]
    assert old.table == new.table
    assert new.shards[: len(old.shards)] == old.shards
    assert [row["place"] for row in rows_of(config, second)] == [
        f"shapes:{number}" for number in range(1, 501)
    ]


def test_a_grown_first_file_leaves_the_second_files_shard(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a red circle\n")
    two.write_text("a blue square\na green cross\n")
    first, _ = harvest(run_of(tmp_path, one, two))
    one.write_text("a red circle\na black circle\n")
    second, made = harvest(run_of(tmp_path, one, two))
    assert made == [1]
    kept = set(first.snapshots["captions"].shards)
    assert kept < set(second.snapshots["captions"].shards)


def test_other_limits_are_another_table(tmp_path):
    one = tmp_path / "one.txt"
    one.write_text("a red circle\n")
    first, _ = harvest(run_of(tmp_path, one))
    second, _ = harvest(run_of(tmp_path, one, long_words=3))
    assert first.snapshots["captions"].table != second.snapshots["captions"].table
    assert rows_of(run_of(tmp_path, one), second)[0]["kind"] == "long"


def test_a_missing_or_empty_file_and_no_caption_at_all_are_named(tmp_path):
    gone, empty, short = (tmp_path / f"{name}.txt" for name in ("gone", "empty", "short"))
    empty.write_text("")
    short.write_text("a\n")
    for path, words in ((gone, "gone.txt"), (empty, "empty.txt is empty"), (short, "no caption")):
        with pytest.raises(ValueError, match=words):
            captions.plan(run_of(tmp_path, path), {})


def test_a_file_that_changes_under_the_harvest_is_noticed(tmp_path):
    one = tmp_path / "one.txt"
    one.write_text("a red circle\n")
    config = run_of(tmp_path, one)
    (work,) = captions.plan(config, {})
    one.write_text("a green circle\n")
    with pytest.raises(ValueError, match="'one' changed"):
        captions.make(config, {}, work, lambda rows: None)


def test_a_source_that_vanishes_mid_run_loses_nothing(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a red circle\n")
    two.write_text("a blue square\n")
    config = run_of(tmp_path, one, two)
    first, second = captions.plan(config, {})
    made = captions.make(config, {}, first, lambda rows: None)
    two.rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"source 'two': no file matches '.*two.txt'"):
        captions.make(config, {}, second, lambda rows: None)
    (tmp_path / "away").rename(two)
    manifest, rows = harvest(config)
    assert rows == [1]
    assert manifest.snapshots["captions"].shards[0] == made[0]


def test_null_bytes_and_huge_captions_are_rows(tmp_path):
    one = tmp_path / "one.txt"
    one.write_bytes(b"a red\x00circle\n" + b"word " * 20_000 + b"\n\x00\x00\n")
    config = run_of(tmp_path, one)
    manifest, _ = harvest(config)
    rows = rows_of(config, manifest)
    assert [(row["caption"][:12], row["reason"]) for row in rows] == [
        ("a red circle", ""),
        ("word word wo", "too long"),
        ("", "too short"),
    ]
    assert len(rows[1]["caption"]) == 99_999


def test_a_killed_and_resumed_harvest_leaves_the_same_files(tmp_path):
    kept = []
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        config = shapes_run(folder, 400)
        if folder.name == "killed":
            captions.make(config, {}, captions.plan(config, {})[1], lambda rows: None)
            captions._harvest.cache_clear()
        manifest, _ = harvest(config)
        kept.append([shard.sha256 for shard in manifest.snapshots["captions"].shards])
    assert kept[0] == kept[1]


def test_an_encoder_that_chooses_is_known_by_its_weights(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")

    def table(folder: Path) -> str:
        embedding = {"kind": "encoder", "model": str(folder)}
        selection = {"num_captions": 9, "embedding": embedding}
        return captions._folder(run_of(tmp_path, tmp_path / "a.txt", selection=selection)).name

    assert table(one) == table(two)
    (two / "model.safetensors").write_bytes(b"others")
    assert table(one) != table(two)


def test_selection_values_are_another_table(tmp_path):
    tables = {
        captions._folder(run_of(tmp_path, tmp_path / "one.txt", **values)).name
        for values in (
            {},
            {"near_duplicates": {}},
            {"language": {}},
            {"selection": {"num_captions": 9}},
            {"rewriter": {"model": "m", "endpoints": ("e",)}},
        )
    }
    assert len(tables) == 5
