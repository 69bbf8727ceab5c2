"""Servers of one model that speak the OpenAI format: asked in turn, again when they fail.

In:    requests as JSON bytes; any number of threads ask at once, at most as many as connections.
Out:   the model's answer. A server that is busy says for how long (Retry-After) and is left alone;
       what fails for good is a `NoAnswerError` or a `RefusedError` with the server's own words.
Rerun: asks again; nothing is kept here.
"""

import itertools
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Protocol

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_when_event_set,
)
from tenacity.nap import sleep_using_event

from pipeline.credentials import masked
from pipeline.judges.answers import NoAnswerError, clean
from pipeline.model_servers import key_header, unserved

LONGEST_WAIT = 30.0
LONGEST_REST = 120.0  # whatever a server asks for
LONGEST_BODY = 4 * 2**20  # bytes of an answer
BUSY = (429, 503)


class BusyError(NoAnswerError):
    """The server asks to be left alone for `rest` seconds."""

    def __init__(self, words: str, rest: float | None) -> None:
        super().__init__(words)
        self.rest = rest


class RefusedError(ValueError):
    """The server understood the request and will not answer it: another try would not help."""


class Served(Protocol):
    """The values of a run that say where and how patiently a model is asked."""

    @property
    def endpoints(self) -> tuple[str, ...]: ...
    @property
    def api_key_variable(self) -> str | None: ...
    @property
    def requests_in_flight(self) -> int: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def patience_seconds(self) -> float: ...


class Servers:
    """`read` takes the answer out of a body; where there is none it raises `NoAnswerError`."""

    def __init__(self, config: Served, read: Callable[[str], str], first_wait: float = 1.0) -> None:
        self.config, self.read, self.first_wait = config, read, first_wait
        self.stop = threading.Event()  # set: whoever waits gives up
        self.endpoints = [endpoint.rstrip("/") for endpoint in config.endpoints]
        self.resting = dict.fromkeys(self.endpoints, 0.0)  # until when
        self.turn = itertools.count()
        self.headers = {"content-type": "application/json", **key_header(config.api_key_variable)}
        self.client = httpx.Client(
            timeout=config.timeout_seconds,
            limits=httpx.Limits(max_connections=config.requests_in_flight),
            trust_env=False,  # the servers are ours: no proxy stands between
        )

    def ask(self, request: bytes) -> str:
        """The answer of whichever server gives one first; tries until patience ends."""
        retries = Retrying(
            retry=retry_if_exception_type((NoAnswerError, httpx.TransportError)),
            stop=stop_after_delay(self.config.patience_seconds) | stop_when_event_set(self.stop),
            wait=self._wait,
            sleep=sleep_using_event(self.stop),
            reraise=True,
        )
        try:
            return retries(self._ask_once, request)
        except httpx.TransportError as error:
            raise NoAnswerError(f"{type(error).__name__}: {error}") from error

    def _ask_once(self, request: bytes) -> str:
        endpoint = self._next()
        try:
            response, text = self._post(f"{endpoint}/chat/completions", request)
        except httpx.ConnectError:
            self._rest(endpoint, self.first_wait)
            raise
        words = f"{endpoint}: {response.status_code} {clean(text)}"
        if response.status_code in BUSY:
            rest = retry_after(response.headers.get("retry-after"))
            self._rest(endpoint, self.first_wait if rest is None else rest)
            raise BusyError(words, rest)
        if response.status_code >= 500:
            raise NoAnswerError(words)
        if response.is_error:
            raise RefusedError(words)
        try:
            return self.read(text)
        except NoAnswerError as error:
            raise NoAnswerError(f"{endpoint}: {error}") from error

    def _post(self, url: str, request: bytes) -> tuple[httpx.Response, str]:
        """The response and its body; one that never ends, in time or in length, is cut off."""
        end = time.monotonic() + self.config.timeout_seconds
        body = bytearray()
        with self.client.stream("POST", url, content=request, headers=self.headers) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LONGEST_BODY or time.monotonic() > end:
                    raise NoAnswerError(f"{url}: no end of the answer after {len(body):,} bytes")
        return response, masked(body.decode("utf-8", "replace"))  # some send the key back

    def _next(self) -> str:
        """The next in turn that is not resting; where all are, the first to be back."""
        now, first = time.monotonic(), next(self.turn) % len(self.endpoints)
        in_turn = self.endpoints[first:] + self.endpoints[:first]
        awake = (endpoint for endpoint in in_turn if self.resting[endpoint] <= now)
        return next(awake, min(in_turn, key=lambda endpoint: self.resting[endpoint]))

    def _rest(self, endpoint: str, seconds: float) -> None:
        until = time.monotonic() + min(seconds, LONGEST_REST)
        self.resting[endpoint] = max(self.resting[endpoint], until)

    def _wait(self, state: RetryCallState) -> float:
        """Until a server is back; longer each time where nothing says how long."""
        error = state.outcome.exception() if state.outcome else None
        back = max(0.0, min(self.resting.values()) - time.monotonic())
        if isinstance(error, httpx.ConnectError) or (isinstance(error, BusyError) and error.rest):
            return back
        return max(back, min(self.first_wait * 2 ** (state.attempt_number - 1), LONGEST_WAIT))


def retry_after(header: str | None) -> float | None:
    """Seconds to wait, given as a number or as a date; None where neither is there."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        then = parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None
    return max(0.0, then - time.time())


def missing_endpoints(config: Served, model: str) -> list[str]:
    """One sentence for each server that does not answer or does not serve the model."""

    def start(endpoint: str) -> str:
        host, _, port = endpoint.split("//")[-1].split("/")[0].partition(":")
        where = f"--host {host} --port {port or 80}"
        return f"vllm serve {model} {where} (or see infra/judge/compose.yaml)"

    return unserved("verdicts.judge", config, model, start)
