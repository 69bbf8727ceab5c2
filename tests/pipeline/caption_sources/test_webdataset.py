import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.caption_sources import SourceRow, all_rows, build, missing
from pipeline.caption_sources import webdataset as module
from pipeline.config import WebDatasetCaptions


def source(path: Path | str, **values):
    given = {"kind": "webdataset", "name": "set", "licence": "MIT", "paths": (str(path),)}
    return build(WebDatasetCaptions(**given | values))


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **header) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in header.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def write(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            add(tar, name, data)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_captions_come_in_the_tars_order_and_pictures_are_skipped(tmp_path: Path, mode) -> None:
    members = {}
    for number in range(3):
        members[f"{number}.jpg"] = bytes(5000)
        members[f"{number}.json"] = json.dumps({"prompt": f"picture {number}"}).encode()
    write(tmp_path / "a.tar", members, mode)
    assert list(all_rows(source(tmp_path / "*.tar"))) == [
        SourceRow(f"picture {number}", f"a.tar:{number}.json") for number in range(3)
    ]


def test_a_text_member_is_the_caption_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"x/0.txt": "a café\n".encode(), "x/0.json": b"{}"})
    rows = list(all_rows(source(path, member="txt", column=None)))
    assert [row.text for row in rows] == ["a café\n"]


def test_names_that_leave_links_and_bombs_are_rejected_rows_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBER_BYTES", 100)
    good = json.dumps({"prompt": "good"}).encode()
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "a.tar", "w") as tar:
        add(tar, "../../out.json", good)
        add(tar, "/out.json", good)
        add(tar, "s.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "h.json", type=tarfile.LNKTYPE, linkname="good.json")
        add(tar, "big.json", b" " * 101)
        add(tar, "good.json", good)
    rows = list(all_rows(source(folder / "a.tar")))
    assert [row.reason for row in rows] == [
        module.UNSAFE_NAME, module.UNSAFE_NAME, module.NOT_A_FILE, module.NOT_A_FILE,
        module.TOO_LARGE, "",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar"]


def test_a_member_that_is_no_caption_says_why(tmp_path: Path) -> None:
    members = {"0.json": b"{", "1.json": b'{"x": 1}', "2.json": b"\xff", "3.json": b'{"prompt": 3}'}
    rows = list(all_rows(source(write(tmp_path / "a.tar", members))))
    assert [row.reason for row in rows] == [
        "broken JSON", "no caption", "undecodable bytes", "no caption"
    ]  # fmt: skip


@pytest.mark.parametrize(("left", "whole"), [(700, 1), (2100, 2), (3 * 1024, 3)])
def test_a_tar_that_breaks_off_keeps_what_came_before(tmp_path: Path, left, whole) -> None:
    path = write(tmp_path / "a.tar", {f"{n}.json": b'{"prompt": "good"}' for n in range(9)})
    path.write_bytes(path.read_bytes()[:left])
    *rows, last = all_rows(source(path))
    assert [row.text for row in rows] == ["good"] * whole
    assert last.reason == module.BROKEN_TAR


@given(st.binary(max_size=3000))
def test_any_bytes_give_rows_or_an_error_that_names_the_file(tmp_path_factory, content) -> None:
    path = tmp_path_factory.mktemp("tar") / "odd.tar"
    whole = write(path, {"0.json": b'{"prompt": "good"}'}).read_bytes()
    path.write_bytes(whole[:1024] + content)
    rows = list(all_rows(source(path)))
    assert rows[0].text == "good"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        list(all_rows(source(path)))


def test_a_tar_without_captions_or_no_tar_at_all_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"0.jpg": b""})
    with pytest.raises(ValueError, match=r"a\.tar has no member that ends with \.json"):
        list(all_rows(source(tmp_path / "a.tar")))
    assert "no file matches" in missing(source(tmp_path / "b.tar").config)[0]


def test_the_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.json": b"{}"})
    before = source(path).fingerprint()
    assert source(path).fingerprint() == before
    write(path, {"0.json": b"{}", "1.json": b"{}"})
    assert source(path).fingerprint() != before
