"""A training on the nodes of a cluster: how many processes it has, and why it ends."""

from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from pipeline import cluster, cluster_training
from pipeline.cluster_training import fewer
from pipeline.config import LoopConfig, RunConfig, load_run
from pipeline.posts import Post
from tests.pipeline.test_cluster import Nodes

EIGHT = {"student.num_processes": 8, "student.launcher": "ray"}
PATIENT = {"min_processes": 2, "wait_seconds": 7, "retries": 2}
POST = Post("", "root", "student", "launches/order.json", "", ())


def shape(loop: LoopConfig) -> tuple[int, int]:
    return loop.num_processes, loop.accumulation


def test_fewer_processes_share_the_same_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ray", Nodes(1))
    config = load_run("tiny", EIGHT | {"engine": {"ray": PATIENT}})
    assert config.student is not None
    four = fewer(config, "student", config.student, room=7)
    assert shape(four) == (4, 2)
    assert shape(fewer(config, "student", four, room=100)) == (2, 4)
    with pytest.raises(ValueError, match=r"num_processes: 8, but .* room for 1 .*min_processes 2"):
        fewer(config, "student", four, room=1)


class Fits:
    """Trainings that end in turn as they are told to; notes the processes of each."""

    def __init__(self, *ends: BaseException | None) -> None:
        self.ends, self.tried = list(ends), list[tuple[int, int]]()

    def __call__(self, config: RunConfig, program: str, post: Post, loop: LoopConfig) -> Any:
        self.tried.append(shape(loop))
        return self

    def fit(self) -> None:
        if end := self.ends.pop(0):
            raise end


def train(monkeypatch: pytest.MonkeyPatch, fits: Fits, count: int = 8, **ray: Any) -> None:
    monkeypatch.setattr(cluster, "ray", Nodes(4, 4))
    monkeypatch.setattr(cluster, "check_nodes", lambda nodes, post: nodes)
    monkeypatch.setattr(cluster_training, "trainer_of", fits)
    monkeypatch.setenv(cluster_training.PATIENCE, "")  # put back afterwards
    values = {"student.num_processes": count, "engine": {"ray": PATIENT | ray}}
    cluster_training.train(load_run("tiny", EIGHT | values), "pretraining", POST)


def ended(kind: str) -> ControllerError:
    return ControllerError(type(kind, (Exception,), {})("Ray's own words"))


def test_a_training_without_room_goes_on_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Fits(ended(cluster_training.NO_ROOM), ended(cluster_training.NOT_STARTED), None)
    train(monkeypatch, fits)
    assert fits.tried == [(8, 1), (4, 2), (4, 2)]


def test_where_nodes_never_come_the_wait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = r"student\.num_processes: 8, .* room for 8 .* which others use, and .* within 7 s"
    with pytest.raises(ValueError, match=said):
        train(monkeypatch, Fits(ended(cluster_training.NO_ROOM)), min_processes=None)


def test_nodes_that_die_again_and_again_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = Fits(*[ended(cluster_training.NOT_STARTED)] * 3)
    with pytest.raises(ControllerError):
        train(monkeypatch, fits)
    died = WorkerGroupError("2 errors", {1: RuntimeError("trace\n  the node died\n")})
    with pytest.raises(ValueError, match=r"process 1 ended .* 2 further tries .*: the node died$"):
        train(monkeypatch, Fits(died))


def test_a_cluster_that_is_too_small_from_the_start_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = Fits()
    with pytest.raises(ValueError, match=r"num_processes: 16, but the cluster has room for 8 of"):
        train(monkeypatch, fits, count=16)
    assert fits.tried == []
