"""Hears of a cancellation where the worker no longer can.

In:    the flow run that was started, of which this process is a part.
Out:   nothing; once that run has been Cancelling for longer than a worker takes, this process gets
       the SIGTERM that its worker did not send. It ends as when cancelled, and is shown as Crashed.
Rerun: watches as long as the body runs.

A worker that was without its server for about a minute stops listening for cancellations of the
flow runs that it has (Prefect 3.8), and says so in its log only.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import flow_run

from flows.patience import if_there

POLL_SECONDS = 10.0
SECONDS = 35.0  # a worker sends SIGTERM at once and SIGKILL after 30 s


@contextmanager
def cancellable() -> Iterator[None]:
    """While the body runs, end this process when its flow run stays in Cancelling."""
    over = threading.Event()
    if own := flow_run.id:
        values = (UUID(own), over, POLL_SECONDS, SECONDS)
        threading.Thread(target=_watch, args=values, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(run: UUID, over: threading.Event, poll: float, seconds: float) -> None:
    since: float | None = None
    while not over.wait(poll):
        if not if_there(_is_cancelling, run=run):
            since = None
            continue
        since = since or time.monotonic()
        if time.monotonic() - since >= seconds:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _is_cancelling(run: UUID) -> bool:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(_first(client, run)).state
    return state is not None and state.is_cancelling()


def _first(client: SyncPrefectClient, run: UUID) -> UUID:
    """The flow run that was started: this one, or that around it."""
    task_run = client.read_flow_run(run).parent_task_run_id
    above = client.read_task_run(task_run).flow_run_id if task_run else None
    return _first(client, above) if above else run
