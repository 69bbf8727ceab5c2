import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.judges.servers import Servers, retry_after


def test_a_server_may_say_how_long_in_seconds_or_by_a_date() -> None:
    assert retry_after("7") == 7
    then = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < (retry_after(format_datetime(then, usegmt=True)) or 0) <= 30
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


def test_servers_take_turns_and_a_resting_one_is_passed_over(servers, asking) -> None:
    both = Servers(asking(servers), str)
    one, other = both.endpoints
    assert [both._next() for _ in range(3)] == [one, other, one]
    both._rest(other, 60)
    assert {both._next() for _ in range(4)} == {one}
    both._rest(one, 90)
    assert {both._next() for _ in range(4)} == {other}  # the first to be back


def test_no_server_may_ask_for_a_day(servers, asking) -> None:
    one = Servers(asking(servers[:1]), str)
    one._rest(one.endpoints[0], 86_400)
    assert one.resting[one.endpoints[0]] - time.monotonic() <= 120


def test_whoever_waits_is_woken_by_the_stop(servers, asking) -> None:
    servers[0].busy_until = time.monotonic() + 60
    one = Servers(asking(servers[:1], patience_seconds=60), str)
    one.stop.set()
    with pytest.raises(ValueError, match="429 later"):
        one.ask(b"{}")
