"""What a node must have in common with the flow, and what a shard takes of it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from pipeline import cluster
from pipeline.config import RunConfig, load_run
from pipeline.tables import Manifest, Shard, Snapshot

ROOT = Path(__file__).parent.parent.parent
CLOSED = "http://127.0.0.1:9/api"  # nobody listens there


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(cluster.NODE, "")  # put back afterwards
    return load_run("tiny", {"root": str(tmp_path / "artifacts")})


def above() -> dict[str, Manifest]:
    shards = (Shard("a", 5, "s", 1, "captions-1"),)
    return {
        "captions": Manifest.of("captions", {"captions": Snapshot("c", 1, "i", "c", 5, shards)})
    }


def test_a_node_reads_the_values_that_the_flow_posted(config: RunConfig) -> None:
    with cluster.posted(config, above(), "images") as post:
        assert cluster.take_post(post) == (config, above())
        assert os.environ[cluster.NODE]
    assert not post.path.exists()


def test_a_node_without_the_root_says_so_before_it_works(config: RunConfig, tmp_path: Path) -> None:
    with cluster.posted(config, above(), "images") as post:
        other = replace(post, root=str(tmp_path / "not-mounted"))
        with pytest.raises(ValueError, match=r"node .* does not see the run's root .*not-mounted"):
            cluster.take_post(other)


def test_another_folder_under_the_roots_name_is_found(config: RunConfig) -> None:
    with cluster.posted(config, above(), "images") as post:
        post.path.write_text("{}")
        assert ["another folder" in said for said in cluster.complaints_of(post)] == [True]


def test_every_difference_is_told_at_once(config: RunConfig) -> None:
    with cluster.posted(config, above(), "images", CLOSED) as post:
        elsewhere = {**dict(post.maker), "torch": "1.0"}
        code, api = cluster.complaints_of(replace(post, maker=tuple(elsewhere.items())))
        assert "(the flow: 1.0); use one image" in code
        assert CLOSED in api
        [folder] = cluster.complaints_of(replace(post, folder="/no/such/folder"))
        assert "has no folder /no/such/folder" in folder


def test_weights_that_a_node_lacks_are_named(config: RunConfig) -> None:
    features = config.features
    assert features
    gone = features.model_copy(update={"text_encoder": "infra/models/none"})
    other = config.model_copy(update={"features": gone})
    with cluster.posted(other, above(), "features") as post:
        [said] = cluster.complaints_of(post)
    assert said == "features.text_encoder: the folder infra/models/none is not there"


def test_a_share_has_a_gpu_where_the_stage_works_on_one() -> None:
    cuda = load_run("tiny", {"device": "cuda", "engine": {"ray": {"stages": {"dpo": {}}}}})
    assert [cluster.share_of(cuda, stage).num_gpus for stage in ("images", "verdicts", "dpo")] == [
        *(1, 0, 1)
    ]
    assert cluster.share_of(load_run("tiny"), "images").num_gpus == 0
    half = {"ray": {"stages": {"images": {"num_gpus": 0.5, "resources": {"a100": 1}}}}}
    share = cluster.share_of(load_run("tiny", {"device": "cuda", "engine": half}), "images")
    assert cluster.amounts(share) == {"CPU": 1, "GPU": 0.5, "a100": 1}


def test_an_address_where_nobody_listens_is_said_at_once() -> None:
    def never() -> None:
        raise AssertionError

    with (
        pytest.raises(ValueError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'.*ray start"),
        cluster.reached("127.0.0.1:9", never, never),
    ):
        pass
