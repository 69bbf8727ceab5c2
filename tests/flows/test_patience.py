"""What is shown on the server waits for it; progress does not; a slow server is told of once."""

import logging
import time
from collections.abc import Callable

import httpx
import pytest

from flows import patience
from flows.patience import Pace, if_there, patiently


def away(times: int) -> Callable[[int], int]:
    """A call that nobody answers so many times."""
    left = [times]

    def call(value: int) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise httpx.ConnectError("All connection attempts failed")
        return value

    return call


def test_it_waits_for_a_server_that_comes_back() -> None:
    assert patiently(away(2), value=7) == 7


def test_a_server_that_stays_away_is_its_own_error() -> None:
    with pytest.raises(httpx.ConnectError):
        patiently(away(99), seconds=0.2, value=7)


def test_progress_waits_for_nobody() -> None:
    assert if_there(away(1), value=7) is None
    assert if_there(away(0), value=7) == 7


def test_a_slow_server_is_told_of_once_and_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "PACE", Pace())
    monkeypatch.setattr(patience, "SLOW_SECONDS", 0.005)
    with caplog.at_level(logging.WARNING):
        for seconds in (0.01, 0.01, 0.0, 0.01, 0.01):
            slow(seconds)
        assert caplog.messages == []
        for _ in range(9):
            slow(0.01)
    (line,) = caplog.messages
    assert "infra/compose.yaml" in line
    assert "SQLite" in line


def slow(seconds: float) -> None:
    def call() -> None:
        time.sleep(seconds)

    patiently(call)
