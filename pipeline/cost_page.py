"""How the cost ledger looks: a page for the UI, a table and a plot for the report.

In:    `Costs`.
Out:   text and SVG.
"""

import base64

from pipeline.amounts import byte_unit, count, duration, money, share, time_unit
from pipeline.costs import Cost, Costs
from pipeline.description import Grid, one_line, table
from pipeline.plan import paper_seconds
from pipeline.plan_page import LEAST_PEAK, aligned, bar_note
from pipeline.rates import PAPER_DEVICE_DAYS


def markdown(costs: Costs) -> str:
    svg = base64.b64encode(plot(costs)).decode()
    parts = [
        f"# Cost of the run {costs.run}",
        one_line(*headline(costs, "**")),
        f"![planned and spent](data:image/svg+xml;base64,{svg})",
        table(money_grid(costs)),
        f"*{legend(costs)}*",
        "### Rows and bytes\n\n" + table(rows_grid(costs)),
        beside_paper(costs, "**"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(costs: Costs, mark: str = "") -> list[str]:
    """Spent in this run, spent for all that it shows, planned."""
    currency = costs.device.currency
    return [
        f"{mark}{money(costs.money(costs.now))} {currency}{mark} in this run",
        f"{mark}{money(costs.money(costs.seconds))} {currency}{mark} for all that it shows",
        f"{mark}{money(costs.money(costs.planned))} {currency}{mark} planned",
    ]


def legend(costs: Costs) -> str:
    device = costs.device
    text = (
        f"Time is that of one {device.name}, at {device.price_per_hour:g} {device.currency} an "
        "hour. Spent: when it was made, in whatever run; now: in this one. A stage that is reused "
        "costs nothing again."
    )
    if any(line.seconds is None for line in costs.lines):
        text += " What is marked ? was made before there was a ledger, or could not be planned."
    return text


def ledger_grid(costs: Costs) -> Grid:
    """A line a stage and their sum: rows, bytes, time and money, planned and spent."""
    left, right = rows_grid(costs), money_grid(costs)
    rows = (a + b[1:] for a, b in zip(left.rows, right.rows, strict=True))
    return Grid("Cost", left.header + right.header[1:], tuple(rows))


def rows_grid(costs: Costs) -> Grid:
    """Rows and bytes of each stage, planned and as they are."""
    total = sum(line.bytes for line in costs.lines)
    room = byte_unit(total)
    rows = [
        (
            line.stage,
            count(line.planned_rows),
            count(line.rows),
            room.cell(line.planned_bytes),
            room.cell(line.bytes),
        )
        for line in costs.lines
    ]
    planned = sum(line.planned_bytes or 0.0 for line in costs.lines)
    rows.append(("all", "", "", room.cell(planned), room.cell(total)))
    header = ("stage", "rows planned", "rows", f"{room.name} planned", f"{room.name} on disk")
    return Grid("Rows and bytes", header, tuple(rows))


def money_grid(costs: Costs) -> Grid:
    """Time and money of each stage: planned, when it was made, in this run."""
    time, currency = time_unit(max(costs.planned, costs.seconds, costs.now)), costs.device.currency
    figures = [(each.stage, each.planned_seconds, each.seconds, each.now) for each in costs.lines]
    figures.append(("all", costs.planned, costs.seconds, costs.now))
    rows = tuple(
        (stage, *map(time.cell, seconds), *(money(costs.money(each)) for each in seconds))
        for stage, *seconds in figures
    )
    times = (f"{time.short} {when}" for when in ("planned", "spent", "now"))
    paid = (f"{currency} {when}" for when in ("planned", "spent", "now"))
    return Grid("Time and money", ("stage", *times, *paid), rows)


def beside_paper(costs: Costs, mark: str = "") -> str:
    """The student's stages beside the paper's figure, in days of an A100 that is as busy."""
    days = costs.students_device_days
    if not days:
        return ""
    priced = ""
    if costs.device.peak_tflops >= LEAST_PEAK:
        paid = money(costs.money(paper_seconds(costs.device)))
        priced = f" ({paid} {costs.device.currency} at this price)"
    return (
        f"Student, preferences and dpo took {mark}{duration(86_400 * days)} of an A100{mark} at "
        f"the same share of its peak; the paper gives {PAPER_DEVICE_DAYS:g} A100-days{priced}, "
        f"without its teacher's pictures: {share(days / PAPER_DEVICE_DAYS)} of that."
    )


def plot(costs: Costs) -> bytes:
    """Planned and spent time by stage."""
    from pipeline.plots import stage_bars

    time = time_unit(max(costs.planned, costs.seconds))
    groups = {
        "planned": [(line.planned_seconds or 0.0) / time.size for line in costs.lines],
        "spent": [(line.seconds or 0.0) / time.size for line in costs.lines],
    }
    label = f"{time.name} of one {costs.device.name}"
    names = [line.stage for line in costs.lines]
    return stage_bars(names, groups, [_note(costs, line) for line in costs.lines], label)


def _note(costs: Costs, line: Cost) -> str:
    if line.seconds is None:
        return "not written down"
    paid, total = (costs.money(each) or 0.0 for each in (line.seconds, costs.seconds))
    note = bar_note(line.seconds, paid, total, costs.device)
    return note if line.now else f"{note}, reused"


def plain(costs: Costs) -> str:
    """The ledger for a terminal."""
    parts = [
        f"cost of the run {costs.run}: {', '.join(headline(costs))}",
        aligned(ledger_grid(costs)),
        beside_paper(costs),
    ]
    return "\n".join(part for part in parts if part)
