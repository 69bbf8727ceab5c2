import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.caption_sources import SourceRow, all_rows, build, missing
from pipeline.caption_sources.files import _plain_object, json_object
from pipeline.config import FileCaptions

WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\t"), min_size=1, max_size=20
).filter(str.strip)


def source(path: Path | str, kind: str, column: str | None = None):
    return build(
        FileCaptions(
            kind="files", name="set", paths=(str(path),), format=kind, column=column, licence="MIT"
        )
    )


def texts(path: Path, kind: str, column: str | None = None) -> list[str | None]:
    return [row.text for row in all_rows(source(path, kind, column))]


@given(st.lists(WORDS, min_size=1))
def test_every_format_gives_back_what_was_written(tmp_path_factory, captions) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "a.txt").write_bytes("\n".join(captions).encode())
    (folder / "a.tsv").write_bytes("\n".join(["n\tc", *(f"1\t{c}" for c in captions)]).encode())
    (folder / "a.jsonl").write_bytes(
        b"".join(json.dumps({"c": c}).encode() + b"\n" for c in captions)
    )
    pq.write_table(pa.table({"c": captions}), folder / "a.parquet")
    assert texts(folder / "a.txt", "text") == captions
    assert texts(folder / "a.tsv", "tsv", "c") == captions
    assert texts(folder / "a.jsonl", "jsonl", "c") == captions
    assert texts(folder / "a.parquet", "parquet", "c") == captions


@given(st.binary(min_size=1), st.sampled_from(["text", "jsonl", "tsv"]))
def test_any_bytes_give_rows_or_a_value_error_that_names_the_file(
    tmp_path_factory, content: bytes, kind: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "odd"
    path.write_bytes(content)
    rows, error = [], str(path)
    try:
        rows = list(all_rows(source(path, kind, "c")))
    except ValueError as raised:
        error = str(raised)
    assert str(path) in error
    assert all((row.text is None) == bool(row.reason) for row in rows)


def test_a_broken_row_says_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [b'{"c": "good"}', b'{"c": ', b'{"c": "\xff"}', b'{"d": 1}', b'{"c": 5}', b"[]", b""]
    path.write_bytes(b"\n".join([*lines, b'{"c": "\\ud800"}']))
    assert list(all_rows(source(path, "jsonl", "c"))) == [
        SourceRow("good", "a.jsonl:1"),
        SourceRow(None, "a.jsonl:2", "broken JSON"),
        SourceRow(None, "a.jsonl:3", "undecodable bytes"),
        SourceRow(None, "a.jsonl:4", "no caption"),
        SourceRow(None, "a.jsonl:5", "no caption"),
        SourceRow(None, "a.jsonl:6", "broken JSON"),
        SourceRow(None, "a.jsonl:7", "no caption"),
        SourceRow(None, "a.jsonl:8", "undecodable bytes"),
    ]


ODD = st.sampled_from(
    ["1", "01", "NaN", "-Infinity", "null", "[", "]", "{}", '{"a":1}', '"c":2,"c"', "//", " "]
) | st.sampled_from(
    ['"\\ud83d"', '"\\u0000"', '"\x00"', '"\\x"', "\ufeff", "1e999", "9" * 5000, "[" * 300]
)


@given(st.lists(ODD | st.text(max_size=4), min_size=1, max_size=4).map("".join))
def test_the_fast_reader_of_json_takes_nothing_that_the_strict_one_refuses(value: str) -> None:
    line = f'{{"c": {value}}}'.encode("utf-8", "surrogatepass")
    fast = _plain_object(line)
    assert fast is None or repr(fast) == repr(json_object(line.decode()))


def test_a_short_tsv_row_and_an_empty_parquet_value_have_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('n\tc\n1\n2\t"quoted" words\n')
    pq.write_table(pa.table({"c": ["one", None, " "]}), tmp_path / "a.parquet")
    tsv = list(all_rows(source(tmp_path / "a.tsv", "tsv", "c")))
    assert tsv[0] == SourceRow(None, "a.tsv:2", "no caption")
    assert tsv[1].text == '"quoted" words'
    parquet = list(all_rows(source(tmp_path / "a.parquet", "parquet", "c")))
    assert [row.reason for row in parquet] == ["", "no caption", "no caption"]


def test_undecodable_parquet_values_are_rows(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"c": broken}), tmp_path / "a.parquet")
    rows = list(all_rows(source(tmp_path / "a.parquet", "parquet", "c")))
    assert [row.reason for row in rows] == ["", "undecodable bytes"]


@pytest.mark.parametrize("kind", ["text", "jsonl", "tsv", "parquet"])
def test_an_empty_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nothing"
    path.touch()
    with pytest.raises(ValueError, match=f"{path} is empty"):
        list(all_rows(source(path, kind, "c")))


def test_a_missing_column_names_the_file_and_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "id": 1}\n')
    (tmp_path / "a.tsv").write_text("id\tprompt\n1\tx\n")
    pq.write_table(pa.table({"prompt": ["x"], "id": [1]}), tmp_path / "a.parquet")
    for kind in ("jsonl", "tsv", "parquet"):
        path = tmp_path / f"a.{kind}"
        with pytest.raises(ValueError, match=rf"{path} has no column 'c'; .*'id', 'prompt'"):
            list(all_rows(source(path, kind, "c")))


def test_a_column_of_numbers_and_a_broken_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": [1, 2]}), path)
    with pytest.raises(ValueError, match=rf"{path}: column 'c' holds int64, expected string"):
        list(all_rows(source(path, "parquet", "c")))
    path.write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=f"{path} is not a Parquet file"):
        list(all_rows(source(path, "parquet", "c")))


def test_a_file_that_is_not_there_is_named_before_and_during_the_run(tmp_path: Path) -> None:
    absent = source(tmp_path / "*.txt", "text")
    (sentence,) = missing(absent.config)
    assert "no file matches" in sentence
    assert str(tmp_path / "*.txt") in sentence
    with pytest.raises(ValueError, match="no file matches"):
        list(all_rows(absent))


def test_a_format_with_columns_needs_one() -> None:
    with pytest.raises(ValueError, match="format tsv needs a column"):
        source("a.tsv", "tsv")


def test_patterns_are_read_in_order_each_file_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    config = FileCaptions(
        kind="files",
        name="set",
        paths=(str(tmp_path / "*.txt"), str(tmp_path / "a.txt")),
        format="text",
        licence="MIT",
    )
    assert [row.text for row in all_rows(build(config))] == ["a", "b"]


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    before = source(path, "text").fingerprint()
    path.touch()
    assert source(path, "text").fingerprint() == before
    path.write_text("two\n")
    assert source(path, "text").fingerprint() != before
