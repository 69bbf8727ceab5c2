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
        table(ledger_grid(costs)),
        f"*{legend(costs)}*",
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
    time = time_unit(max(costs.planned, costs.seconds, costs.now))
    total_bytes = sum(line.bytes for line in costs.lines)
    room = byte_unit(total_bytes)
    rows = [
        (
            line.stage,
            count(line.planned_rows),
            count(line.rows),
            room.cell(line.planned_bytes),
            room.cell(line.bytes),
            time.cell(line.planned_seconds),
            time.cell(line.seconds),
            time.cell(line.now),
            money(costs.money(line.seconds)),
            money(costs.money(line.now)),
        )
        for line in costs.lines
    ]
    planned_bytes = sum(line.planned_bytes or 0.0 for line in costs.lines)
    times = (time.cell(each) for each in (costs.planned, costs.seconds, costs.now))
    paid = (money(costs.money(each)) for each in (costs.seconds, costs.now))
    rows.append(("all", "", "", room.cell(planned_bytes), room.cell(total_bytes), *times, *paid))  # type: ignore[arg-type]
    currency = costs.device.currency
    header = (
        *("stage", "rows planned", "rows", f"{room.name} planned", f"{room.name} on disk"),
        *(f"{time.name} planned", f"{time.name} spent", f"{time.name} now"),
        *(f"{currency} spent", f"{currency} now"),
    )
    return Grid("Cost", header, tuple(rows))


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
