"""Hours, bytes and money as a person reads them, in units that fit the whole of a table.

In:    seconds, bytes, counts; None where nothing tells.
Out:   text for cells.
"""

from dataclasses import dataclass

NOT_KNOWN = "?"


@dataclass(frozen=True)
class Unit:
    """So many of the base unit, by name."""

    name: str
    size: float
    short: str = ""

    def cell(self, value: float | None) -> str:
        """Three figures that count, no digits beyond them."""
        return NOT_KNOWN if value is None else figure(value / self.size)


def time_unit(seconds: float) -> Unit:
    """Hours, or less where all of it is less than some."""
    if seconds >= 3 * 3600:
        return Unit("hours", 3600, "h")
    return Unit("minutes", 60, "min") if seconds >= 3 * 60 else Unit("seconds", 1, "s")


def byte_unit(total: float) -> Unit:
    for name, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if total >= 3 * size:
            return Unit(name, size)
    return Unit("kB", 1e3)


def figure(value: float) -> str:
    """`1,234`, `12.3`, `0.123`; what is too little to show is a nought."""
    if value == 0 or abs(value) < 0.0005:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def money(value: float | None) -> str:
    """Hundredths where there are few."""
    if value is None:
        return NOT_KNOWN
    return f"{value:,.2f}" if 0.995 <= value < 99.5 else figure(value)


def count(value: float | None, at_most: bool = False) -> str:
    if value is None:
        return NOT_KNOWN
    return f"≤ {value:,.0f}" if at_most else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """`12 s`, `25 min`, `7.5 h`, `31 days`."""
    for name, size, least in (("days", 86_400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{figure(seconds / size)} {name}"
    return f"{figure(seconds)} s"


def share(value: float) -> str:
    """A percentage; a very small one as one part of so many."""
    if 0 < value < 0.001:
        return f"one part in {1 / value:,.0f}"
    return f"{100 * value:.{0 if value >= 0.1 else 1}f} %"
