"""An input that grows, shrinks or changes its order: what stayed the same is not made again."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import lance
import pytest

from pipeline import captions, features, images, verdicts
from pipeline.config import RunConfig
from pipeline.places import table_path
from pipeline.shapes.grammar import sample_captions
from pipeline.snapshots import Manifest
from pipeline.tables import read
from tests.pipeline.conftest import make_stage

STAGES = (captions, images, verdicts, features)
ROWS, TENTH, PER_SHARD = 50, 5, 25
TEXTS = list(dict.fromkeys(sample_captions(4 * ROWS, 0)))
Run = Callable[..., RunConfig]
Made = dict[str, list[str]]


@pytest.fixture
def run(debug_run, tmp_path) -> Run:
    """A run over text files in this order: a source each, with these rows of `TEXTS`."""

    def build(root: Path | None = None, **sources: tuple[int, int]) -> RunConfig:
        values = []
        for name, (first, count) in sources.items():
            path = tmp_path / f"{name}.txt"
            path.write_text("\n".join(TEXTS[first : first + count]) + "\n")
            file = {"kind": "files", "format": "text", "paths": [str(path)]}
            values.append({"name": name, "licence": "MIT", **file})
        return debug_run({"captions.sources": values}, root)

    return build


def through(config: RunConfig) -> tuple[dict[str, Manifest], Made]:
    """The data stages, found or made, and which works made something."""
    above: dict[str, Manifest] = {}
    made: Made = {}
    for stage in STAGES:
        found = stage.find(config, above)
        if found is None:
            found, made[stage.STAGE] = make_stage(stage, config, above)
        above[stage.STAGE] = found
    return above, made


def files(config: RunConfig) -> dict[str, str]:
    paths = Path(config.root).glob("tables/*/data/*.lance")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def rows(config: RunConfig, manifest: Manifest, name: str, column: str) -> list[str]:
    return read(config.root, manifest.snapshots[name], [column])[column].to_pylist()


def same_as_afresh(config: RunConfig, above: dict[str, Manifest], tmp_path: Path) -> bool:
    """Is this what a root that never saw anything else would hold?"""
    afresh = config.model_copy(update={"root": str(tmp_path / "afresh")})
    shutil.rmtree(afresh.root, ignore_errors=True)
    new, _ = through(afresh)
    return (
        all(
            rows(afresh, new[stage], stage, "caption_id")
            == rows(config, above[stage], stage, "caption_id")
            for stage in ("captions", "images", "verdicts")
        )
        and files(afresh).items() <= files(config).items()
    )


def test_an_input_that_grows_by_a_tenth_adds_a_tenth(run, tmp_path):
    small, _ = through(run(one=(0, ROWS)))
    config = run(one=(0, ROWS + TENTH))
    before = files(config)
    large, made = through(config)
    assert {name: len(works) for name, works in made.items()} == {
        "captions": 1, "images": 1, "verdicts": 1, "features": 2
    }  # fmt: skip
    assert {name: files(config)[name] for name in before} == before
    for stage in ("captions", "images", "verdicts"):
        old, new = small[stage].snapshots[stage], large[stage].snapshots[stage]
        assert set(old.shards) < set(new.shards)
        assert (old.table, old.version, new.version) == (new.table, 1, 2)
        tags = lance.dataset(str(table_path(Path(config.root), new.table))).tags.list()
        assert {name: tag["version"] for name, tag in tags.items()} == {old.tag: 1, new.tag: 2}
    assert same_as_afresh(config, large, tmp_path)


def test_the_former_input_finds_its_former_version(run):
    small, _ = through(run(one=(0, ROWS)))
    through(run(one=(0, ROWS + TENTH)))
    again, made = through(run(one=(0, ROWS)))
    assert again == small
    assert made == {}


def test_an_input_that_shrinks_makes_at_most_its_cut_shard_again(run, tmp_path):
    through(run(one=(0, ROWS + TENTH)))
    config = run(one=(0, ROWS))
    before = files(config)
    small, made = through(config)
    assert {name: works for name, works in made.items() if works} == {}
    assert files(config) == before
    cut = run(one=(0, ROWS - TENTH))
    smaller, made = through(cut)
    assert all(len(works) <= 1 for stage, works in made.items() if stage != "features")
    assert small["captions"].content != smaller["captions"].content
    assert same_as_afresh(cut, smaller, tmp_path)


def test_sources_in_another_order_are_made_of_the_same_shards(run, tmp_path):
    """But for the pictures at 128 px, which the first ten captions have."""
    one, two = (0, ROWS), (ROWS, ROWS)
    through(run(one=one, two=two))
    config = run(two=two, one=one)
    swapped, made = through(config)
    assert made["captions"] == []
    assert len(made["images"]) == 1
    assert same_as_afresh(config, swapped, tmp_path)
    back, made = through(run(one=one, two=two))
    assert made == {}
    assert back["images"].content != swapped["images"].content
