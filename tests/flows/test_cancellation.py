"""A flow run that stays in Cancelling, since nobody ends it, ends itself."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Cancelling

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
FLOW = """
import time
from prefect import flow
from prefect.runtime import flow_run
from flows import cancellation
cancellation.POLL_SECONDS, cancellation.SECONDS = 0.2, 1.0

@flow
def inner():
    with cancellation.cancellable():
        time.sleep(60)

@flow
def outer():
    print(flow_run.id, flush=True)
    inner()

outer()
"""


def test_a_run_that_stays_in_cancelling_ends_by_itself(server: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FLOW], cwd=ROOT, env=server, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        run = process.stdout.readline().strip()
        began = time.monotonic()
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling())  # type: ignore[arg-type]
            assert process.wait(40) != 0
            assert time.monotonic() - began > 1  # it leaves the worker its time
            state = client.read_flow_run(run).state  # type: ignore[arg-type]
    assert state
    assert state.is_final()
