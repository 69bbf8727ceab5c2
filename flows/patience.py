"""The Prefect server may be away for a while, or slow: what is shown there waits for it.

In:    a call that stores something on the server, such as an artifact.
Out:   its answer, if need be after the server was started again; one line in the log when the
       server is what everything waits for.
Rerun: `patiently` asks until `SECONDS` are over, then gives the server's own error.

Prefect repeats what a flow run itself asks (`client.max_retries` in prefect.toml). Each artifact
comes by a connection of its own, and those Prefect does not repeat where nobody answers.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

SECONDS = 480.0  # as long as Prefect itself, see prefect.toml
SLOW_SECONDS, SLOW_CALLS = 2.0, 3
Answer = TypeVar("Answer")


class Pace:
    """How long the server takes to store something; says so once when that is too long."""

    def __init__(self) -> None:
        self.slow, self.told = 0, False

    @contextmanager
    def watched(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.slow = self.slow + 1 if seconds > SLOW_SECONDS else 0
        if self.slow == SLOW_CALLS and not self.told:
            self.told = True
            log().warning(
                "the Prefect server took %.1f s to store something, the third time in a row above "
                "%.0f s: SQLite writes for one at a time; infra/compose.yaml starts a server with "
                "Postgres for many workers",
                seconds,
                SLOW_SECONDS,
            )


PACE = Pace()


def patiently(call: Callable[..., Answer], *, seconds: float = SECONDS, **values: Any) -> Answer:
    """Call until the server answers; its error when it does not for so many seconds."""
    asking = Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        wait=wait_exponential(multiplier=0.5, max=10),
        stop=stop_after_delay(seconds),
        before_sleep=lambda state: log().info("the Prefect server does not answer; waiting"),
        reraise=True,
    )
    for attempt in asking:
        with attempt, PACE.watched():
            return call(**values)
    raise AssertionError  # the last attempt returned or raised


def if_there(call: Callable[..., Answer], **values: Any) -> Answer | None:
    """Call once, for what is not worth waiting for; None where nobody answers."""
    try:
        with PACE.watched():
            return call(**values)
    except httpx.HTTPError as error:
        log().debug("not shown: %s", error)
        return None


def log() -> "logging.Logger | logging.LoggerAdapter[Any]":
    """The flow run's, if this is one."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)
