"""What is shown adds up, and diversity is measured where the run wants it."""

from pathlib import Path

import pytest

from pipeline import captions
from pipeline.config import RunConfig
from pipeline.description import Description
from pipeline.tables import Manifest

CAPTIONS = ["two red cats on a table", "a blue dog", "a blue dog", "x", "one green bus " * 7]


def described(tmp_path: Path, lines: list[str], **values) -> Description:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n")
    source = {"kind": "files", "name": "a", "paths": [str(path)], "format": "text"}
    source |= {"licence": "MIT", "caution": "Read the card."}
    section = {"sources": [source], **values}
    run = RunConfig.model_validate({"name": "t", "root": str(tmp_path / "r"), "captions": section})
    shards = [s for w in captions.plan(run, {}) for s in captions.make(run, {}, w, lambda n: None)]
    manifest: Manifest = captions.commit(run, {}, shards)
    return captions.describe(run, {}, manifest)


def grid(description: Description, title: str) -> dict[str, tuple[str, ...]]:
    (found,) = [each for each in description.tables if each.title == title]
    return {row[0]: row[1:] for row in found.rows}


def test_counts_and_cautions_are_shown(tmp_path: Path) -> None:
    seen = described(tmp_path, CAPTIONS)
    assert (seen.rows_in, seen.kept, seen.rejected) == (5, 3, 2)
    assert seen.reasons == {"duplicate": 1, "too short": 1}
    assert grid(seen, "Sources")["a"] == ("MIT", "5", "3", "1", "0", "1", "10.0")
    assert grid(seen, "Length classes")["long"] == ("1", "21", "21", "21", "33.3%")
    assert seen.facts["caution 1"] == "a (MIT): Read the card."
    assert seen.plots == ()
    assert "Read the card" in seen.markdown()


def test_diversity_is_measured_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    seen = described(
        tmp_path,
        [f"a {colour} {thing} {n}" for colour in ("red", "blue") for thing in ("cat", "bus", "kite")
         for n in range(8)],
        diversity={"clusters": 6, "embedding": {"kind": "hashed", "dimensions": 8}},
    )  # fmt: skip
    whole = grid(seen, "Diversity")["kept"]
    assert whole[0] == "48"
    assert 1 < float(whole[1]) <= 8
    assert whole[2] == "100.0%"
    balance = grid(seen, "Concept balance")
    assert balance["colours"][:3] == ("100.0%", "2", "2.0")
    assert balance["objects"][:3] == ("100.0%", "3", "3.0")
    assert [plot.title for plot in seen.plots] == ["Words a caption", "Most frequent concepts"]
    assert all(b"<svg" in plot.svg for plot in seen.plots)


def test_a_choice_is_shown_beside_what_it_was_made_from(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    lines = [f"a red cat {n}" for n in range(40)] + ["a blue bus", "a green kite"]
    seen = described(
        tmp_path,
        lines,
        selection={"num_captions": 6, "clusters": 3, "short_share": None},
        diversity={"clusters": 3},
    )
    assert seen.reasons == {"not selected": 36}
    diversity = grid(seen, "Diversity")
    even = {name: float(cells[3].rstrip("%")) for name, cells in diversity.items()}
    assert even["kept"] > even["kept and not selected"]
    assert list(diversity) == ["kept", "kept and not selected", "as many by chance", "a"]
    assert diversity["as many by chance"][0] == diversity["kept"][0] == "6"


def test_a_mix_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    lines = [f"a red cat {n}" for n in range(30)] + [f"{n} " * 25 for n in range(3)]
    selection = {"num_captions": 10, "clusters": 2, "short_share": 0.5}
    seen = described(tmp_path, lines, selection=selection)
    lacking = "70.0% of those chosen, 50.0% asked for: there are no more long ones"
    assert seen.facts["short captions"] == lacking
    selection["short_share"] = 0.8
    seen = described(tmp_path, lines, selection=selection)
    assert seen.facts["short captions"] == "80.0% of those chosen"
