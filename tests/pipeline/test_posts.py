"""What a node must have in common with the flow, and what it says it lacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, load_run
from pipeline.posts import complaints_of, posted
from pipeline.tables import Manifest, Shard, Snapshot

ROOT = Path(__file__).parent.parent.parent
CLOSED = "http://127.0.0.1:9/api"  # nobody listens there


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(ROOT)
    return load_run("tiny", {"root": str(tmp_path / "artifacts")})


def above() -> dict[str, Manifest]:
    shards = (Shard("a", 5, "s", 1, "captions-1"),)
    return {
        "captions": Manifest.of("captions", {"captions": Snapshot("c", 1, "i", "c", 5, shards)})
    }


def test_another_folder_under_the_roots_name_is_found(config: RunConfig) -> None:
    with posted(config, above(), "images") as post:
        post.path.write_text("{}")
        assert ["another folder" in said for said in complaints_of(post)] == [True]


def test_every_difference_is_told_at_once(config: RunConfig) -> None:
    with posted(config, above(), "images", CLOSED) as post:
        elsewhere = {**dict(post.maker), "torch": "1.0"}
        code, api = complaints_of(replace(post, maker=tuple(elsewhere.items())))
        assert "(the flow: 1.0); use one image" in code
        assert CLOSED in api
        [folder] = complaints_of(replace(post, folder="/no/such/folder"))
        assert "has no folder /no/such/folder" in folder


def test_weights_that_a_node_lacks_are_named(config: RunConfig) -> None:
    features = config.features
    assert features
    gone = features.model_copy(update={"text_encoder": "infra/models/none"})
    other = config.model_copy(update={"features": gone})
    with posted(other, above(), "features") as post:
        [said] = complaints_of(post)
    assert said == "features.text_encoder: the folder infra/models/none is not there"


def test_a_root_in_a_bucket_is_seen_by_its_environment(
    config: RunConfig, bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = config.model_copy(update={"root": bucket("run")})
    with posted(there, above(), "images") as post:
        assert complaints_of(post) == []
        elsewhere = replace(post, root=bucket("other"))
        assert "does not see the run's root s3://" in complaints_of(elsewhere)[0]
    assert not post.path.exists()


def test_a_node_that_the_store_refuses_says_what_it_needs(
    config: RunConfig, bucket: Callable[[str], str], object_store: Any
) -> None:
    there = config.model_copy(update={"root": bucket("run")})
    with posted(there, above(), "images") as post:
        object_store.forbidden = True
        said = "; ".join(complaints_of(post))
        object_store.forbidden = False
    assert "cannot read the run's root" in said
    assert "where its ray start is said" in said
    assert "planted-secret" not in said
