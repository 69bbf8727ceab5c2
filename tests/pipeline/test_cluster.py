"""How a cluster is reached, what a shard takes of its nodes, and how long one is waited for."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from pipeline import cluster
from pipeline.config import NodeShare, RunConfig, load_run
from pipeline.posts import posted
from pipeline.tables import Manifest, Shard, Snapshot

ROOT = Path(__file__).parent.parent.parent


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
    with posted(config, above(), "images") as post:
        assert cluster.take_post(post) == (config, above())
        assert os.environ[cluster.NODE]
    assert not post.path.exists()


def test_a_node_without_the_root_says_so_before_it_works(config: RunConfig, tmp_path: Path) -> None:
    with posted(config, above(), "images") as post:
        other = replace(post, root=str(tmp_path / "not-mounted"))
        with pytest.raises(ValueError, match=r"node .* does not see the run's root .*not-mounted"):
            cluster.take_post(other)


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
    with (
        pytest.raises(ValueError, match=r"'127\.0\.0\.1:9': nobody answers there .*ray start"),
        cluster.reached("127.0.0.1:9"),
    ):
        pass


class Head:
    """A cluster that ends so many tries to reach it, in place of Ray."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.tries, self.left = error, times, 0, False

    def init(self, address: str) -> None:
        self.tries += 1
        if self.tries <= self.times:
            raise self.error

    def shutdown(self) -> None:
        self.left = True


def reach(monkeypatch: pytest.MonkeyPatch, error: Exception, times: int) -> Head:
    head = Head(error, times)
    monkeypatch.setattr(cluster, "unreachable", lambda address: "")
    monkeypatch.setattr(cluster, "ray", head)
    monkeypatch.setattr(cluster._enter.retry, "sleep", lambda seconds: None)
    with cluster.reached("ray://head:10001"):
        assert not head.left
    return head


def test_what_ray_says_of_a_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    other = RuntimeError("Version mismatch:\n  the cluster: 1\n  this process: 2")
    with pytest.raises(ValueError, match=r"not take .* in \(Version mismatch: the cluster: 1 this"):
        reach(monkeypatch, other, times=1)


def test_a_client_whose_process_dies_on_the_head_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    died = ConnectionAbortedError("Starting Ray client server failed")
    head = reach(monkeypatch, died, times=2)
    assert (head.tries, head.left) == (3, True)
    with pytest.raises(ValueError, match="Starting Ray client server failed"):
        reach(monkeypatch, died, times=3)


class Nodes:
    """A cluster of so many nodes, in place of Ray; nothing on it is ever done."""

    def __init__(self, *cpus: int) -> None:
        self.cpus, self.looks = cpus, 0

    def nodes(self) -> list[dict[str, Any]]:
        who = {"Alive": True, "NodeManagerHostname": "h", "NodeManagerAddress": "1.2.3.4"}
        return [who | {"Resources": {"CPU": count}} for count in self.cpus]

    def wait(self, refs: list[str], **_: Any) -> tuple[list[str], list[str]]:
        self.looks += 1
        return (refs[:1] if self.looks > 3 else [], refs)


def test_shards_that_no_node_can_hold_are_given_up_after_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "ray", Nodes(1))
    with pytest.raises(ValueError, match=r"images: .*GPU.* fits no node .*within 0 s .*again"):
        cluster.first_done(["shard"], "engine.ray.stages.images", NodeShare(num_gpus=1), 0)
    assert cluster.first_done(["shard"], "place", NodeShare(num_gpus=0), 0) == "shard"
