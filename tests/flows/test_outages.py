"""A training of two processes is cancelled from outside, goes on, and outlives its server's death.

A dead worker takes minutes to be seen: that is in `tests/benchmarks/outages.py`, with the times.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.outages import Training, begun, cancel, restart_server
from tests.flows.conftest import debug_values
from tests.flows.own_server import OwnServer

pytestmark = pytest.mark.slow


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path / "prefect")
    server.start_server()
    server.start_worker()
    yield server
    server.close()


def test_a_cancelled_training_goes_on_where_it_was_and_needs_no_server_meanwhile(
    own: OwnServer, tmp_path: Path
) -> None:
    training = Training(tmp_path / "run", debug_values(tmp_path / "artifacts"), steps=300)
    training.make_data()
    deployment = own.deploy("flows/training.py:student", "debug", {"run": training.run})
    cancel(own, begun(own, training, deployment))  # which asserts that no process is left
    saved = training.saved()
    flow_run = begun(own, training, deployment)
    assert f"goes on after step {saved} of 300" in own.said("worker")
    restart_server(own, flow_run, away=0)  # which asserts that the run completes
    assert training.weights()
