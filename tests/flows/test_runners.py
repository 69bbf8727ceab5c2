"""A run on two real Ray nodes: the same bytes as on one machine, also when one node is killed."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
from ray.cluster_utils import Cluster

from flows.distillation import distill
from flows.training import dpo, student
from pipeline import cluster as nodes
from pipeline.config import NodeShare, load_run
from pipeline.posts import posted
from tests.flows import two_nodes
from tests.flows.conftest import debug_values

pytestmark = pytest.mark.slow  # nodes start, and processes on them that import what a flow does


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    before = dict(os.environ)
    os.environ.update(two_nodes.ENVIRONMENT)
    made = Cluster(initialize_head=True, head_node_args=two_nodes.SMALL)
    made.add_node(**two_nodes.SMALL)
    yield made
    made.shutdown()
    os.environ.clear()
    os.environ.update(before)


def run(folder: Path, launcher: str = "", **engine: Any) -> Path:
    """Captions to features, and with a launcher short trainings by two processes, DPO's as well."""
    values = debug_values(folder / "artifacts")
    values["captions"] = {
        "sources": [{"kind": "shapes", "num_captions": 900}],
        "rows_per_shard": 100,
    }
    phase = values["student"]["phases"][0] | {"steps": 60}  # long enough to be killed in
    values["student"] |= {"phases": [phase], "num_processes": 2, "launcher": launcher}
    values["dpo"] |= {"steps": 60, "checkpoint_every": 4}
    values["dpo"] |= {"num_processes": 2, "launcher": launcher}
    for stage in ("evaluation", *(() if launcher else ("student", "preferences", "dpo"))):
        del values[stage]
    folder.mkdir(exist_ok=True)
    path = folder / "debug.yaml"
    path.write_text(yaml.safe_dump({**values, "engine": engine}))
    return path


def on(cluster: Cluster) -> dict[str, Any]:
    return {"task_runner": "ray", "ray": {"address": cluster.address}}


@pytest.fixture(scope="module")
def alone(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of what one machine makes, its two training processes under torchrun."""
    folder = tmp_path_factory.mktemp("alone")
    distill(run=str(run(folder, "torchrun")))
    return folder / "artifacts"


def test_what_no_node_has_is_said_before_ray_waits_for_it(cluster: Cluster) -> None:
    with (
        nodes.reached(cluster.address),
        pytest.raises(ValueError, match=r"images: .*'GPU': 1.* fits no node .*'CPU': 1"),
    ):
        nodes.fitting("engine.ray.stages.images", NodeShare(num_gpus=1))


def test_a_node_that_died_before_a_stage_is_left_out_and_others_work(
    cluster: Cluster, tmp_path: Path
) -> None:
    config = load_run(run(tmp_path, **on(cluster)))
    with nodes.reached(cluster.address), posted(config, {}, "images") as post:
        doomed = cluster.add_node(**two_nodes.SMALL)
        counted = nodes.fitting("engine.ray.stages.images", NodeShare())
        two_nodes.kill(two_nodes.processes(doomed))
        left = nodes.check_nodes(counted, post)
    assert {node["NodeID"] for node in counted} - {node["NodeID"] for node in left} == {
        doomed.node_id
    }


@contextmanager
def struck(doomed: Callable[[], Any]) -> Iterator[list[Any]]:
    """While the body runs everything on a node is killed, as soon as `doomed` says which."""
    killed: list[Any] = []

    def strike() -> None:
        end = time.monotonic() + 300
        while not killed and time.monotonic() < end:
            if node := doomed():
                two_nodes.kill(two_nodes.processes(node))
                killed.append(node)

    striker = threading.Thread(target=strike)
    striker.start()
    yield killed
    striker.join()


@pytest.mark.parametrize("stage", [student, dpo], ids=lambda stage: stage.name)
def test_two_nodes_train_the_weights_that_torchrun_trains_though_one_dies(
    cluster: Cluster, alone: Path, tmp_path: Path, stage: Any
) -> None:
    root, trains = tmp_path / "artifacts", {"resources": {"train": 1}}
    trained = f"checkpoints/{stage.name}-*"
    shutil.copytree(alone, root, ignore=shutil.ignore_patterns(f"{stage.name}-*"))
    there = [cluster.add_node(**two_nodes.SMALL, **trains) for _ in range(3)]
    engine = on(cluster)
    engine["ray"] |= {"stages": {stage.name: trains}}

    def at_work_with_a_state() -> Any:
        saved = list(root.glob(f"{trained}/**/state-*.pt"))
        return two_nodes.at_work(there) if saved else None

    with struck(at_work_with_a_state) as killed:
        stage(run=str(run(tmp_path, "ray", **engine)))
    for node in set(there) - set(killed):
        cluster.remove_node(node)
    weights = f"{trained}/final/model.safetensors"
    [expected], [made] = alone.glob(weights), root.glob(weights)
    assert killed
    assert made.read_bytes() == expected.read_bytes()


def test_a_node_killed_in_the_middle_costs_no_byte(
    cluster: Cluster, alone: Path, tmp_path: Path
) -> None:
    doomed = cluster.add_node(**two_nodes.SMALL)
    with struck(lambda: two_nodes.writes(two_nodes.processes(doomed)) and doomed) as killed:
        distill(run=str(run(tmp_path, **on(cluster))))
    made, expected = (
        two_nodes.files(root, of_students=False) for root in (tmp_path / "artifacts", alone)
    )
    assert killed
    assert len(expected) > 30
    assert made == expected
