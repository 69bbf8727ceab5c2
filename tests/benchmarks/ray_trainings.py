"""Nodes killed in the middle of a training under Ray Train, and the ways to reach a cluster.

`python -m tests.benchmarks.ray_trainings` (with the extras `ray` and `s3`) prints a table.

One machine: a Ray cluster whose head takes no work and whose nodes hold a process each. A node is
killed with all of its processes as soon as the training has saved a state. Told for each way:
seconds, how often processes were started, and the weights against those of torchrun.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import yaml
from safetensors.torch import load_file

from pipeline import student
from pipeline.config import RunConfig, load_run
from pipeline.roots import fetched
from pipeline.tables import Manifest
from tests.flows import two_nodes
from tests.flows.own_server import free_port
from tests.pipeline.conftest import DATA_STAGES, VALUES, make_stage
from tests.pipeline.object_store import ObjectStore

REPOSITORY = Path(__file__).parent.parent.parent
STEPS, EVERY = 200, 10
WEIGHTS = "model.safetensors"


@dataclass
class Trial:
    """A training of two processes whose data are made."""

    folder: Path
    root: str
    engine: Mapping[str, Any]
    launcher: str = "ray"

    def prepare(self) -> "Trial":
        self.folder.mkdir(parents=True)
        values: dict[str, Any] = json.loads(json.dumps(VALUES)) | {"root": self.root}
        values["student"] |= {
            "num_processes": 2, "checkpoint_every": EVERY, "log_every": EVERY,
            "launcher": self.launcher,
        }  # fmt: skip
        values["student"]["phases"][0]["steps"] = STEPS
        for stage in ("preferences", "dpo", "evaluation"):
            del values[stage]
        values["engine"] = {"ray": dict(self.engine)}
        self.config_file.write_text(yaml.safe_dump(values))
        made: dict[str, Manifest] = {}
        for stage in DATA_STAGES:
            made[stage.STAGE], _ = make_stage(stage, self.config, made)
        self.upstream = made
        texts = {name: manifest.to_json() for name, manifest in made.items()}
        (self.folder / "upstream.json").write_text(json.dumps(texts))
        return self

    @property
    def config_file(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def config(self) -> RunConfig:
        return load_run(self.config_file)

    @property
    def kept(self) -> Path:
        return student.folder(self.config, self.upstream).kept

    def train(self) -> tuple[float, int, str]:
        """Seconds, status and all that was said."""
        began = time.monotonic()
        files = self.config_file, self.folder / "upstream.json"
        self.child = subprocess.Popen(
            student.command(*files),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said, _ = self.child.communicate()
        with (self.folder / "said.log").open("a") as log:
            log.write(said)
        return time.monotonic() - began, self.child.returncode, said

    def newest(self) -> int:
        """The last saved step."""
        names = [path.stem for path in self.kept.glob("phase-0-64/state-*.pt")]
        return max((int(name.removeprefix("state-")) for name in names), default=0)

    def weights(self) -> Path:
        return fetched(self.kept / student.FINAL) / WEIGHTS


class Machines:
    """A cluster; nodes come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.port = free_port()
        head = two_nodes.SMALL | {"num_cpus": 0, "ray_client_server_port": self.port}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, **environment: str) -> Any:
        node = self.cluster.add_node(**two_nodes.SMALL, env_vars=environment or None)
        self.nodes.append(node)
        return node

    def only(self, count: int) -> None:
        """So many nodes, all of them alive."""
        while len(self.nodes) < count:
            self.add()
        while len(self.nodes) > count:
            self.remove(self.nodes[-1])

    def remove(self, node: Any) -> None:
        self.nodes.remove(node)
        self.cluster.remove_node(node)

    def kill_one(self) -> None:
        """Everything on a node that is at work, at once, as a power cut does."""
        node = two_nodes.at_work(self.nodes)
        self.nodes.remove(node)
        two_nodes.kill(two_nodes.processes(node))


def struck(trial: Trial, act: Callable[[], None]) -> tuple[int, float, int, str]:
    """Train, and `act` once as soon as a state is saved; its step, and what `train` returns."""
    with ThreadPoolExecutor(1) as thread:  # nodes can be added by the main thread only
        training = thread.submit(trial.train)
        while not (step := trial.newest()):
            assert not training.done(), training.result()[2][-3000:]
            time.sleep(0.02)
        act()
        return step, *training.result()


# --- the ways -----------------------------------------------------------------------------------

Row = tuple[str, ...]


def ways(folder: Path, chosen: str) -> Iterator[Row]:
    """The rows of the table."""
    alone = Trial(folder / "alone", str(folder / "alone/root"), {}, "torchrun").prepare()
    seconds, status, said = alone.train()
    assert status == 0, said[-3000:]
    yield "one machine, torchrun", f"{seconds:.0f}", "1", "", "1 file"
    expected = alone.weights()
    machines = Machines()
    try:
        for name, way in WAYS.items():
            if chosen in name:
                place = folder / name.replace(" ", "-").replace(",", "")
                yield name, *way(place, machines, expected)
    finally:
        machines.cluster.shutdown()


def told(trial: Trial, expected: Path, seconds: float, said: str, note: str) -> Row:
    started = said.count("Started training worker group of size")
    return f"{seconds:.0f}", f"{started}", note, difference(trial.weights(), expected)


def difference(made: Path, expected: Path) -> str:
    if made.read_bytes() == expected.read_bytes():
        return "the same bytes"
    one, other = load_file(made), load_file(expected)
    most = max(float((one[name] - other[name]).abs().max()) for name in other)
    return f"largest difference {most:.1e}"


def engine(machines: Machines, **values: Any) -> dict[str, Any]:
    return {"address": machines.address, "wait_seconds": 60, **values}


def undisturbed(folder: Path, machines: Machines, expected: Path) -> Row:
    machines.only(2)
    trial = Trial(folder, str(folder / "root"), engine(machines)).prepare()
    seconds, status, said = trial.train()
    assert status == 0, said[-3000:]
    return told(trial, expected, seconds, said, "")


def another_is_there(folder: Path, machines: Machines, expected: Path) -> Row:
    machines.only(3)
    trial = Trial(folder, str(folder / "root"), engine(machines)).prepare()
    step, seconds, status, said = struck(trial, machines.kill_one)
    assert status == 0, said[-3000:]
    return told(trial, expected, seconds, said, f"killed after step {step}")


def it_comes_back(folder: Path, machines: Machines, expected: Path) -> Row:
    machines.only(2)
    trial = Trial(folder, str(folder / "root"), engine(machines)).prepare()

    def strike() -> None:
        machines.kill_one()
        time.sleep(8)
        machines.add()

    step, seconds, status, said = struck(trial, strike)
    assert status == 0, said[-3000:]
    return told(trial, expected, seconds, said, f"killed after step {step}, back after 8 s")


def fewer_go_on(folder: Path, machines: Machines, expected: Path) -> Row:
    machines.only(2)
    values = engine(machines, wait_seconds=15, min_processes=1)
    trial = Trial(folder, str(folder / "root"), values).prepare()
    step, seconds, status, said = struck(trial, machines.kill_one)
    assert status == 0, said[-3000:]
    return told(trial, expected, seconds, said, f"killed after step {step}, one goes on")


def by_the_client(folder: Path, machines: Machines, expected: Path) -> Row:
    machines.only(3)
    values = engine(machines) | {"address": f"ray://127.0.0.1:{machines.port}"}
    trial = Trial(folder, str(folder / "root"), values).prepare()
    step, seconds, status, said = struck(trial, machines.kill_one)
    assert status == 0, said[-3000:]
    return told(trial, expected, seconds, said, f"killed after step {step}")


def none_comes(folder: Path, machines: Machines, expected: Path) -> Row:
    """The error in full; then the node is back, and the same command ends the training."""
    machines.only(2)
    trial = Trial(folder, str(folder / "root"), engine(machines, wait_seconds=15)).prepare()
    _, seconds, status, said = struck(trial, machines.kill_one)
    assert status == 1, said[-3000:]
    sentence = said.strip().splitlines()[-1]
    machines.only(2)
    more, status, said = trial.train()
    assert status == 0, said[-3000:]
    note = f"after {seconds:.0f} s: “{sentence}”; back, the same command"
    return told(trial, expected, seconds + more, said, note)


def told_to_end(folder: Path, machines: Machines, expected: Path) -> Row:
    """SIGTERM for the one process that is here; the others are on nodes."""
    machines.only(2)
    trial = Trial(folder, str(folder / "root"), engine(machines)).prepare()
    signalled = [0.0]

    def tell() -> None:
        signalled[0] = time.monotonic()
        trial.child.terminate()

    step, seconds, status, said = struck(trial, tell)
    took, saved = time.monotonic() - signalled[0], trial.newest()
    assert (status, saved > step) == (143, True), said[-3000:]
    more, status, said = trial.train()
    assert status == 0, said[-3000:]
    note = f"told after step {step}, left in {took:.0f} s with step {saved} saved; the same command"
    return told(trial, expected, seconds + more, said, note)


def in_a_bucket(folder: Path, machines: Machines, expected: Path) -> Row:
    """Each node has a disk of its own and nothing else in common but the store."""
    store = ObjectStore()
    os.environ.update(store.variables())
    try:
        machines.only(0)
        bucket = f"runs-{uuid4().hex[:8]}"
        httpx.put(f"{store.url}/{bucket}").raise_for_status()
        for number in range(3):
            own = {"LIGHTGEN_CACHE": str(folder / f"near-{number}")}
            machines.add(**store.variables(), **own)
        os.environ["LIGHTGEN_CACHE"] = str(folder / "near-flow")
        trial = Trial(folder / "run", f"s3://{bucket}/run", engine(machines)).prepare()
        step, seconds, status, said = struck(trial, machines.kill_one)
        assert status == 0, said[-3000:]
        row = told(trial, expected, seconds, said, f"killed after step {step}")
        secret = store.variables()["AWS_SECRET_ACCESS_KEY"]
        assert secret not in said
        return row
    finally:
        machines.only(0)
        for name in (*store.variables(), "LIGHTGEN_CACHE"):
            os.environ.pop(name, None)
        store.close()


WAYS: dict[str, Callable[[Path, Machines, Path], Row]] = {
    "two nodes": undisturbed,
    "one killed, another is there": another_is_there,
    "one killed, it comes back": it_comes_back,
    "one killed, fewer go on": fewer_go_on,
    "one killed, none comes": none_comes,
    "Ray's client, one killed": by_the_client,
    "told to end (SIGTERM)": told_to_end,
    "a bucket, one killed": in_a_bucket,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/tmp/ray-trainings"))
    parser.add_argument("--only", default="", help="words of the ways to play")
    args = parser.parse_args()
    shutil.rmtree(args.root, ignore_errors=True)
    os.environ.update(two_nodes.ENVIRONMENT | {"PYTHONPATH": str(REPOSITORY)})
    print("| way | seconds | groups started | what | weights |\n|---|---|---|---|---|", flush=True)
    for row in ways(args.root, args.only):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
