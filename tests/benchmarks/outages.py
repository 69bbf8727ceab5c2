"""What a cancellation, a dead worker and a dead Prefect server do to a training under way.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.outages

One debug run on a server and a worker of its own: its training, two processes under torchrun, is
cancelled; the same command goes on, and its worker is killed with the flow's process; the same
command goes on on a new worker, and the server is killed and comes back later. At the end the
weights are those of an undisturbed training. Prints how long everything took.
"""

import argparse
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.config import load_run
from pipeline.tables import Manifest
from pipeline.upstream import STAGES
from tests.flows.own_server import OwnServer

NUM_DATA = 4  # stages before the training
PROGRAM = "pipeline.pretraining"
logger = logging.getLogger(__name__)


class Training:
    """A debug run whose data are made, and whose training takes a while."""

    def __init__(self, folder: Path, values: Mapping[str, Any], steps: int) -> None:
        folder.mkdir(parents=True)
        self.run, self.root = str(folder / "debug.yaml"), Path(values["root"])
        loop = {"num_processes": 2, "checkpoint_every": 10, "log_every": 2, "sample_every": steps}
        first, second = values["student"]["phases"]
        phases = [{**first, "steps": steps}, second]
        changed = {**values, "student": {**values["student"], **loop, "phases": phases}}
        Path(self.run).write_text(yaml.safe_dump(changed))

    def make_data(self) -> None:
        config, upstream = load_run(self.run), dict[str, Manifest]()
        for stage in STAGES[:NUM_DATA]:
            made: Any = stage
            plan = made.plan(config, upstream)
            shards = [s for w in plan for s in made.make(config, upstream, w, lambda rows: None)]
            upstream[made.STAGE] = made.commit(config, upstream, shards)

    def saved(self) -> int:
        """The newest saved step of the first phase."""
        paths = sorted(self.root.glob("checkpoints/student-*/phase-0-64/state-*.pt"))
        return int(paths[-1].stem.removeprefix("state-")) if paths else 0

    def weights(self) -> str:
        (path,) = self.root.glob("checkpoints/student-*/final/model.safetensors")
        return hashlib.sha256(path.read_bytes()).hexdigest()


def begun(own: OwnServer, training: Training, deployment: str) -> str:
    """A flow run whose training has just saved a further state."""
    before, flow_run = training.saved(), own.run(deployment)
    own.until(lambda: training.saved() > before, 400)
    return flow_run


def gone(processes: list[psutil.Process]) -> bool:
    def is_there(each: psutil.Process) -> bool:
        try:
            return each.is_running() and each.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(is_there(each) for each in processes)


def cancel(own: OwnServer, flow_run: str) -> tuple[float, float]:
    """Seconds until no process of the training is left, and until the run is shown as Cancelled."""
    children = own.below_worker(PROGRAM)
    assert len(children) == 3, "torchrun and its two processes"
    # What the UI and `prefect flow-run cancel` send; the command itself first imports for seconds.
    own.ask("POST", f"/flow_runs/{flow_run}/set_state", {"state": {"type": "CANCELLING"}})
    began = time.monotonic()
    own.until(lambda: gone(children), 60)
    children_gone = time.monotonic() - began
    assert own.until_final(flow_run) == "CANCELLED"
    logger.info("no process left after %.1f s", children_gone)
    return children_gone, time.monotonic() - began


def kill_worker(own: OwnServer, flow_run: str) -> tuple[float, float]:
    """The same for `kill -9` of the worker and of the flow's process; shown as Crashed."""
    children, (flow,) = own.below_worker(PROGRAM), own.below_worker("prefect.engine")
    began = time.monotonic()
    own.kill("worker")
    flow.kill()
    own.until(lambda: gone(children), 60)
    children_gone = time.monotonic() - began
    assert own.until_final(flow_run, 600) == "CRASHED"
    return children_gone, time.monotonic() - began


def restart_server(own: OwnServer, flow_run: str, away: float) -> float:
    """Kill -9 of the server, which comes back; how long until the run has completed."""
    own.kill("server")
    time.sleep(away)
    own.start_server()
    began = time.monotonic()
    assert own.until_final(flow_run, 900) == "COMPLETED"
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--away", type=float, default=60.0, help="seconds without a server")
    args = parser.parse_args()
    from tests.flows.conftest import debug_values

    folder = Path(tempfile.mkdtemp(prefix="outages-"))
    own, rows = OwnServer(folder / "prefect"), list[tuple[str, ...]]()
    whole = Training(folder / "whole", debug_values(folder / "whole/artifacts"), args.steps)
    whole.make_data()
    shutil.copytree(folder / "whole/artifacts", folder / "hurt/artifacts.made")
    hurt = Training(folder / "hurt/run", debug_values(folder / "hurt/artifacts.made"), args.steps)

    def told(what: str, act: Callable[[], tuple[float, ...]], shown: str) -> None:
        at = hurt.saved()
        seconds = [f"{each:.1f} s" for each in act()]
        rows.append((what, *seconds, shown, f"{at} then {hurt.saved()}"))
        print(rows[-1], flush=True)

    try:
        own.start_server()
        own.start_worker()
        for _ in range(2):
            own.module("flows.automations")
        assert len(own.ask("POST", "/automations/filter", {})) == 1
        deploy = own.deploy("flows/training.py:student", "debug", {"run": hurt.run})
        flow_run = begun(own, hurt, deploy)
        told("cancelled", lambda: cancel(own, flow_run), "Cancelled")
        flow_run = begun(own, hurt, deploy)
        told("worker killed", lambda: kill_worker(own, flow_run), "Crashed")
        own.start_worker()
        flow_run = begun(own, hurt, deploy)
        what = f"server away {args.away:.0f} s"
        told(what, lambda: ((restart_server(own, flow_run, args.away)),), "Completed")
        deploy = own.deploy("flows/training.py:student", "whole", {"run": whole.run})
        assert own.until_final(own.run(deploy), 900) == "COMPLETED"
        same = whole.weights() == hurt.weights()
        print(f"weights {'identical' if same else 'DIFFERENT'}")
    finally:
        own.close()
        print((folder / "prefect/worker.log").read_text()[-6000:])


if __name__ == "__main__":
    main()
