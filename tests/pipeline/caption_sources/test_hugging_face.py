import importlib.util
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.caption_sources import SourceRow, all_rows, build, missing
from pipeline.config import HuggingFaceCaptions
from pipeline.readings import read_source

INSTALLED = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not INSTALLED, reason="needs lightgen[hub]")


def source(folder: Path | str, column: str = "text", **values):
    given = {"kind": "hugging_face", "name": "set", "licence": "MIT", "dataset": str(folder)}
    return build(HuggingFaceCaptions(**given | {"column": column} | values))


def folder_of(tmp_path: Path, *shards: dict[str, list]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.table(shard), folder / name)
    return folder


@needs_datasets
def test_every_shard_is_a_part_and_every_row_a_row(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"text": ["one", None]}, {"text": ["three"]})
    parts = source(folder).parts()
    assert [part.name for part in parts] == ["set-00000-of-00002", "set-00001-of-00002"]
    assert [list(part.rows()) for part in parts] == [
        [SourceRow("one", "set:0:1"), SourceRow(None, "set:0:2", "no caption")],
        [SourceRow("three", "set:1:1")],
    ]


@needs_datasets
def test_a_column_may_lead_into_structs_and_lists(tmp_path: Path) -> None:
    talk = [[{"from": "human", "value": "Say."}, {"from": "gpt", "value": "A cat."}], []]
    folder = folder_of(tmp_path, {"conversations": talk, "json": [{"prompt": "x"}, None]})
    turns = list(all_rows(source(folder, "conversations.1.value")))
    assert [row.text for row in turns] == ["A cat.", None]
    assert [row.text for row in all_rows(source(folder, "json.prompt"))] == ["x", None]


@needs_datasets
def test_rows_that_a_filter_does_not_want_stay_with_their_reason(tmp_path: Path) -> None:
    shard = {"text": list("abcd"), "language": ["en", "de", "en", None], "score": [6.0, 9, 1, None]}
    filters = [{"column": "language", "equals": "en"}, {"column": "score", "at_least": 5}]
    rows = all_rows(source(folder_of(tmp_path, shard), filters=filters))
    assert [(row.text, row.reason) for row in rows] == [
        ("a", ""),
        ("b", "not wanted: language"),
        ("c", "not wanted: score"),
        ("d", "not wanted: language"),
    ]


@needs_datasets
def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"prompt": ["x"]})
    with pytest.raises(ValueError, match=r"no column 'text' in .*\['prompt'\]"):
        source(folder).parts()


def test_a_set_of_the_hub_needs_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (sentence,) = missing(source("some/set").config)
    assert "needs a revision" in sentence
    assert missing(source("some/set", revision="0" * 40).config) == []
    with pytest.raises(ValueError, match="revision"):
        source("some/set", revision="main")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install -e '.[hub]'" in missing(source("some/set").config)[0]


def test_the_fingerprint_follows_the_files_and_asks_no_hub(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"text": ["one"]})
    before = source(folder).fingerprint()
    assert source(folder.rename(tmp_path / "moved")).fingerprint() == before
    folder_of(tmp_path, {"text": ["one", "two"]})
    assert source(folder).fingerprint() != before
    pinned = [source("some/set", revision=digit * 40).fingerprint() for digit in "01"]
    assert pinned[0] != pinned[1]


@needs_datasets
def test_a_shard_that_vanishes_is_named_and_the_ones_before_it_stay(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"text": ["one"]}, {"text": ["two"]})
    vanishing = source(folder)
    parts = vanishing.parts()
    second = folder / "train-00001-of-00002.parquet"
    away = second.rename(tmp_path / "away")
    vanishing.parts = lambda: parts
    with pytest.raises(ValueError, match="'set': set-00001-of-00002 could not be read to its end"):
        read_source(tmp_path, vanishing, None)
    assert len(list((tmp_path / "readings").glob("*.arrow"))) == 1
    away.rename(second)
    assert read_source(tmp_path, vanishing, None).rows["caption"].to_pylist() == ["one", "two"]
