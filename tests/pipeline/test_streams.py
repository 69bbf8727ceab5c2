"""Threads beside the work: order, bounds, errors in either place, and nothing left behind."""

import threading
import time

import pytest

from pipeline.streams import ahead, beside


def test_results_come_in_the_order_of_their_items() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    with ahead(iter(range(30)), work, threads=4, depth=6) as results:
        assert list(results) == [number * number for number in range(30)]


def test_no_more_is_begun_than_the_depth_allows() -> None:
    begun: list[int] = []
    with ahead(iter(range(20)), begun.append, threads=2, depth=3) as results:
        for taken, _ in enumerate(results):
            time.sleep(0.01)
            assert len(begun) <= taken + 3
    assert begun == list(range(20))


def test_a_result_is_taken_while_the_next_are_made() -> None:
    together, met = threading.Barrier(2, timeout=10), []
    with ahead(iter(range(2)), lambda number: number or together.wait(), threads=1, depth=2) as one:
        together.wait()  # would time out if nothing were made before it is asked for
        met = list(one)
    assert met[1] == 1


@pytest.mark.parametrize("place", ["work", "items"])
def test_an_error_in_a_thread_is_raised_at_its_turn(place: str) -> None:
    def items():
        yield from (1, 2, 0 if place == "work" else 3)
        if place == "items":
            raise ZeroDivisionError

    taken = []
    with (
        pytest.raises(ZeroDivisionError),
        ahead(items(), lambda number: 6 // number, threads=2, depth=2) as results,
    ):
        taken.extend(results)
    assert taken == [6, 3] if place == "work" else [6, 3, 2]


def test_leaving_early_ends_every_thread() -> None:
    before = threading.active_count()
    with ahead(iter(range(1000)), str, threads=3, depth=4) as results:
        next(results)
    with beside(list, depth=1) as outlet:
        outlet.put(1)
    assert threading.active_count() == before


def test_what_is_put_away_arrives_in_order_beside_the_work() -> None:
    with beside(lambda items: [item * 2 for item in items], depth=2) as outlet:
        for number in range(50):
            outlet.put(number)
        assert outlet.finish() == list(range(0, 100, 2))


def test_a_slow_consumer_is_waited_for() -> None:
    taken: list[int] = []

    def slow(items):
        for item in items:
            time.sleep(0.005)
            taken.append(item)

    with beside(slow, depth=2) as outlet:
        for number in range(10):
            outlet.put(number)
            assert number - len(taken) <= 3
        outlet.finish()
    assert taken == list(range(10))


def put_all(consume, count: int = 100) -> None:
    with beside(consume, depth=1) as outlet:
        for number in range(count):
            outlet.put(number)
        raise KeyError("after the last")


def test_a_consumers_error_is_raised_where_the_next_is_put() -> None:
    def broken(items):
        next(items)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        put_all(broken)


def test_a_consumer_that_wants_no_more_is_not_waited_for() -> None:
    with beside(lambda items: "there already", depth=1) as outlet:
        for number in range(10):
            outlet.put(number)
        assert outlet.finish() == "there already"


def test_a_block_that_fails_abandons_what_it_put() -> None:
    kept: list[list[int]] = []
    with pytest.raises(KeyError, match="after the last"):
        put_all(lambda items: kept.append(list(items)), count=5)
    assert kept == []
