"""Numbers as a person reads them."""

import pytest

from pipeline import amounts


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0004, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234, "1,234")],
)
def test_a_figure_has_the_digits_that_count(value: float, text: str) -> None:
    assert amounts.figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "?"), (0.002, "0.002"), (0.999, "1.00"), (12.3, "12.30"), (99.6, "99.6"), (500, "500")],
)
def test_money_has_hundredths_where_there_is_little(value: float | None, text: str) -> None:
    assert amounts.money(value) == text


def test_units_fit_the_whole_of_a_table() -> None:
    units = [amounts.time_unit(seconds).name for seconds in (10, 600, 40_000)]
    assert units == ["seconds", "minutes", "hours"]
    assert amounts.time_unit(36_000).cell(1800) == "0.500"
    rooms = [amounts.byte_unit(value).name for value in (5e3, 5e6, 5e9, 5e12)]
    assert rooms == ["kB", "MB", "GB", "TB"]
    assert amounts.byte_unit(5e9).cell(None) == "?"


def test_durations_shares_and_counts() -> None:
    durations = [amounts.duration(seconds) for seconds in (12, 1500, 27_000, 86_400 * 31)]
    assert durations == ["12.0 s", "25.0 min", "7.50 h", "31.0 days"]
    assert amounts.share(0.587) == "59 %"
    assert amounts.share(0.0123) == "1.2 %"
    assert amounts.share(1e-6) == "one part in 1,000,000"
    assert [amounts.count(None), amounts.count(5), amounts.count(5000, at_most=True)] == [
        "?", "5", "≤ 5,000"
    ]  # fmt: skip
