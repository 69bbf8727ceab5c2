"""A part is read once; what breaks off or vanishes leaves what came before it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.caption_sources import Part, SourceRow
from pipeline.disk import DiskRefused
from pipeline.readings import Reading, read_source


class Source:
    """A source of parts in memory that counts how often each is read."""

    name, licence = "set", "MIT"

    def __init__(self, **parts: list[SourceRow | OSError]) -> None:
        self.rows = parts
        self.read: list[str] = []

    def fingerprint(self) -> str:
        return repr(self.rows)

    def parts(self) -> list[Part]:
        return [
            Part(name, repr(rows), lambda n=name: self._of(n)) for name, rows in self.rows.items()
        ]

    def _of(self, name: str) -> Iterator[SourceRow]:
        self.read.append(name)
        for row in self.rows[name]:
            if isinstance(row, OSError):
                raise row
            yield row


def rows_of(reading: Reading) -> list[dict]:
    return reading.rows.to_pylist()


def test_rows_are_normalised_in_order_with_their_reasons(tmp_path: Path) -> None:
    source = Source(
        a=[SourceRow(" a\x00 red\tcat", "a:1"), SourceRow(None, "a:2", "broken JSON")],
        b=[SourceRow("x" * 100_000, "b:1"), SourceRow("foreign", "b:2", "not wanted: language")],
    )
    rows = rows_of(read_source(tmp_path, source, None))
    assert [(row["caption"][:9], row["place"], row["reason"], row["words"]) for row in rows] == [
        ("a red cat", "a:1", "", 3),
        ("", "a:2", "broken JSON", 0),
        ("xxxxxxxxx", "b:1", "", 1),
        ("foreign", "b:2", "not wanted: language", 1),
    ]
    assert len(rows[2]["caption"]) == 100_000
    assert [bool(row["caption_id"]) for row in rows] == [True, False, True, True]


def test_a_part_is_read_once_and_a_new_one_alone(tmp_path: Path) -> None:
    source = Source(a=[SourceRow("one", "a:1")])
    first = rows_of(read_source(tmp_path, source, None))
    source.rows["b"] = [SourceRow("two", "b:1")]
    both = rows_of(read_source(tmp_path, source, None))
    assert source.read == ["a", "b"]
    assert both[:1] == first


def test_a_source_that_vanishes_is_named_and_the_parts_before_it_stay(tmp_path: Path) -> None:
    gone = OSError(5, "Input/output error")
    source = Source(a=[SourceRow("one", "a:1")], b=[SourceRow("two", "b:1"), gone])
    with pytest.raises(ValueError, match=r"'set': b could not be read to its end .*run again"):
        read_source(tmp_path, source, None)
    left = sorted(path.suffix for path in (tmp_path / "readings").iterdir())
    assert left == [".arrow", ".json"]
    source.rows["b"].remove(gone)
    assert len(rows_of(read_source(tmp_path, source, None))) == 2
    assert source.read == ["a", "b", "b"]


def test_a_full_disk_is_not_taken_for_a_lost_source(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    with pytest.raises(DiskRefused, match=r"the disk is full at .*readings"):
        read_source(tmp_path, Source(a=[SourceRow("one", "a:1"), full]), None)
    assert list((tmp_path / "readings").iterdir()) == []


def test_a_part_of_many_rows_is_whole(tmp_path: Path) -> None:
    number = 20_000
    source = Source(a=[SourceRow(f"caption {n}", f"a:{n}") for n in range(number)])
    table = read_source(tmp_path, source, None).rows
    assert table["caption"].to_pylist() == [f"caption {n}" for n in range(number)]
