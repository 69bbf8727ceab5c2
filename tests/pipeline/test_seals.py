"""Sealed records: what was written comes back, and no flipped bit passes for it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.seals import damage_of, read_sealed, sum_of, write_sealed, write_sum

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text().filter(lambda name: name != "seal"), PLAIN)


@settings(max_examples=60, deadline=None)
@given(values=RECORDS)
def test_records_come_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("seals") / "record.json"
    write_sealed(path, values)
    assert read_sealed(path) == values
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_every_single_flipped_bit_is_seen(tmp_path):
    path, values = tmp_path / "record.json", {"rows": 17, "name": "a table", "sums": ["ab", None]}
    write_sealed(path, values)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            assert read_sealed(path, values) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"rows": 1}', "\x00" * 40])
def test_what_is_no_sealed_record_is_damaged(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    assert read_sealed(path) is None


def test_a_record_from_before_seals_is_read_when_its_names_are_right(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"rows": 1, "name": "a"}))
    assert read_sealed(path, ("rows", "name")) == {"rows": 1, "name": "a"}
    assert read_sealed(path, ("rows",)) is None


def test_a_sum_beside_a_file_tells_its_damage(tmp_path: Path) -> None:
    path = tmp_path / "state-000000001.pt"
    path.write_bytes(b"state")
    assert damage_of(path) == ""
    write_sum(path, path)
    assert damage_of(path) == ""
    path.write_bytes(b"stale")
    assert "another checksum" in damage_of(path)
    sum_of(path).write_bytes(b"")
    assert "damaged checksum" in damage_of(path)
