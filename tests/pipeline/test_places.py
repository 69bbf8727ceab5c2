"""Where things lie, and that nothing outside the root is ever moved."""

from pathlib import Path

import pytest

from pipeline.places import inside, set_aside, version_file, versions


def test_a_file_set_aside_keeps_its_bytes_and_says_where_it_was(tmp_path):
    path = tmp_path / "tables" / "a.lance" / "data" / "x.lance"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    place = set_aside(tmp_path, path)
    assert not path.exists()
    assert place.parent == tmp_path / "quarantine"
    assert place.name.endswith("tables--a.lance--data--x.lance")
    assert place.read_bytes() == b"damaged"


@pytest.mark.parametrize("place", ["../outside", "tables/../../outside", "/etc/passwd"])
def test_a_record_never_leads_out_of_the_root(tmp_path, place):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(ValueError, match="is not below"):
        set_aside(root, root / place)
    assert inside(root, root / "tables" / "a") == root / "tables" / "a"
    assert (tmp_path / "outside").read_text() == "mine"


def test_versions_are_found_by_their_manifests_newest_first(tmp_path: Path) -> None:
    for number in (1, 3, 2):
        path = version_file(tmp_path, "a", number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"m")
    (path.parent / "latest_version_hint.json").write_text("{}")
    assert versions(path.parent.parent) == [3, 2, 1]
