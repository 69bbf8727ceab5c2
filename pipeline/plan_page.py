"""How a plan looks: a page in Markdown for the UI, a table for the terminal.

In:    a `Plan`.
Out:   text; the page has its plot inside as a `data:` URI.
"""

import base64

from pipeline.amounts import byte_unit, count, duration, money, share, time_unit
from pipeline.description import SPACE, Grid, escaped, one_line, table
from pipeline.plan import STUDENT_STAGES, Line, Plan, paper_seconds
from pipeline.rates import PAPER_DEVICE_DAYS, PlanDevice

LEAST_PEAK = 50.0  # TFLOP/s: the paper's training at the price of a smaller device says nothing
EXACT = ("preferences", "dpo", "evaluate")  # their rows are chosen, not all that there are


def markdown(plan: Plan) -> str:
    """The plan as one artifact."""
    parts = [
        f"# Plan of the run {plan.run}",
        *([f"> {escaped(plan.note)}"] if plan.note else []),
        headline(plan),
        *(f"> **Caution.** {escaped(caution)}" for caution in plan.cautions),
        f"![time by stage]({_uri(plot(plan))})",
        table(stages_grid(plan)),
        _remarks(plan),
        _listed("What is missing on this machine", missing_of(plan)),
        _listed("What nothing tells before", plan.unknown),
        _listed("Licences that apply", licence_lines(plan)),
        _titled(reckoning_grid(plan)),
        _titled(kept_grid(plan)),
        "### Beside the paper\n\n" + beside_paper(plan),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(plan: Plan) -> str:
    """What is left to do and to pay, in one line."""
    least = "" if plan.is_whole else "at least "
    seconds = plan.seconds
    parts = [
        f"**{least}{duration(seconds)}** of one {plan.device.name}",
        *(
            [f"**{duration(seconds / plan.devices)}** on {plan.devices}"]
            if plan.devices > 1
            else []
        ),
        f"**{money(plan.money(seconds))} {plan.device.currency}**"
        f" at {plan.device.price_per_hour:g} an hour",
        f"**{amount_of_bytes(plan.bytes)}** to be written",
    ]
    there = plan.whole_seconds - seconds
    if there > 0:
        parts.append(f"**{duration(there)}** of work is there already")
    return one_line(*parts)


def amount_of_bytes(value: float) -> str:
    unit = byte_unit(value)
    return f"{unit.cell(value)} {unit.name}"


def stages_grid(plan: Plan) -> Grid:
    """A line a stage and their sum. Time, money and bytes are of what is left."""
    time, room = time_unit(plan.whole_seconds), byte_unit(plan.bytes)
    rows = []
    for line in plan.lines:
        bound = plan.at_most and line.stage not in EXACT
        paid = None if line.seconds is None else plan.money(line.seconds)
        rows.append(
            (
                line.stage,
                count(line.rows_in, bound and line.rows_in is not None),
                "" if line.stage == "evaluate" else count(line.kept, bound),
                _there(line),
                room.cell(line.bytes_left),
                time.cell(line.seconds),
                money(paid),
            )
        )
    total = ("all", "", "", "", room.cell(plan.bytes), time.cell(plan.seconds))
    rows.append((*total, money(plan.money(plan.seconds))))
    header = ("stage", "rows in", "kept", "there already", room.name, time.name)
    return Grid("Stages", (*header, plan.device.currency), tuple(rows))


def _there(line: Line) -> str:
    there = line.there
    if there.whole:
        return "all"
    return f"{there.rows:,} of {there.of:,}" if there.rows else "-"


def _remarks(plan: Plan) -> str:
    device = plan.device
    text = [
        f"Of one {device.name}: {device.peak_tflops:g} TFLOP/s at most, "
        f"{device.price_per_hour:g} {device.currency} an hour ({device.source})."
    ]
    if plan.at_most:
        text.append("Rows with ≤ are the most that the run's selection lets through.")
    if not plan.is_whole:
        text.append("What is marked ? is in no sum.")
    text.append("Starting up is not counted.")
    if any(line.there.whole for line in plan.lines):
        text.append("Stages that are there cost nothing again.")
    return "*" + " ".join(text) + "*"


def missing_of(plan: Plan) -> tuple[str, ...]:
    return (*plan.missing, *(each for line in plan.lines for each in line.missing))


def licence_lines(plan: Plan) -> tuple[str, ...]:
    return tuple(
        f"{line.stage}: {licence.what}: {licence.name}"
        + (f" ({licence.caution})" if licence.caution else "")
        for line in plan.lines
        for licence in line.licences
    )


def reckoning_grid(plan: Plan) -> Grid:
    """Every kind of work with its rate and where that comes from."""
    rows = tuple(
        (line.stage, f"{count(effort.pieces)} {effort.what}", effort.told, effort.source)
        for line in plan.lines
        for effort in line.efforts
    )
    rows += tuple(
        (
            line.stage,
            f"the part that is there, {share(line.done)} of the work",
            duration(line.there.spent or 0.0),
            "measured: this run, and so is the rest",
        )
        for line in plan.lines
        if line.measured
    )
    return Grid("How the time is reckoned", ("stage", "work", "of one device", "from"), rows)


def kept_grid(plan: Plan) -> Grid:
    rows = tuple(
        (line.stage, *plan.shares[line.stage].split(", ", 1))
        for line in plan.lines
        if line.stage in plan.shares
    )
    return Grid("What is thought to be kept", ("stage", "share", "from"), rows)


def beside_paper(plan: Plan) -> str:
    """The student's stages beside the paper's figure, in days of an A100 that is as busy."""
    days = plan.students_device_days
    if not days:
        return ""
    paper, priced = paper_seconds(plan.device), ""
    stages = [line for line in plan.lines if line.stage in STUDENT_STAGES]
    least = "at least " if any(line.whole_seconds is None for line in stages) else ""
    if plan.device.peak_tflops >= LEAST_PEAK:
        priced = f" ({money(plan.money(paper))} {plan.device.currency} at this price)"
    return (
        f"The paper gives {PAPER_DEVICE_DAYS:g} A100-days{priced}, without its teacher's "
        f"pictures. Student, preferences and dpo of this plan are {least}"
        f"**{duration(86_400 * days)} of an A100** at the same share of its peak, "
        f"{share(days / PAPER_DEVICE_DAYS)} of that."
    )


def plot(plan: Plan) -> bytes:
    """Bars of time by stage, with the money of what is left."""
    from pipeline.plots import stage_bars

    time = time_unit(plan.whole_seconds)
    left = [(line.seconds or 0.0) / time.size for line in plan.lines]
    whole = [(line.whole_seconds or 0.0) / time.size for line in plan.lines]
    groups = {"to be made": left}
    if any(line.there.share for line in plan.lines):
        groups["there already"] = [max(0.0, b - a) for a, b in zip(left, whole, strict=True)]
    return stage_bars(
        [line.stage for line in plan.lines],
        groups,
        [_note(plan, line) for line in plan.lines],
        f"{time.name} of one {plan.device.name}",
        stacked=True,
    )


def _note(plan: Plan, line: Line) -> str:
    if line.there.whole:
        return "there"
    if line.seconds is None:
        return "not known"
    return bar_note(line.seconds, plan.money(line.seconds), plan.money(plan.seconds), plan.device)


def bar_note(seconds: float, paid: float, total: float, device: PlanDevice) -> str:
    """Money at the end of a bar; where all of it is next to nothing, the time."""
    return f"{money(paid)} {device.currency}" if total >= 1 else duration(seconds)


def plain(plan: Plan) -> str:
    """The plan for a terminal."""
    parts = [
        f"plan of the run {plan.run}: {headline(plan)}".replace(SPACE, " ").replace("**", ""),
        aligned(stages_grid(plan)),
        *(f"caution: {caution}" for caution in plan.cautions),
        *(f"licence: {line}" for line in licence_lines(plan)),
        *(f"not known: {sentence}" for sentence in plan.unknown),
        *(f"missing: {sentence}" for sentence in missing_of(plan)),
        beside_paper(plan).replace("**", ""),
    ]
    return "\n".join(part for part in parts if part)


def aligned(grid: Grid) -> str:
    """A table in columns of fixed width, the first on the left, the others on the right."""
    cells = [grid.header, *grid.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(grid.header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _titled(grid: Grid) -> str:
    return f"### {grid.title}\n\n{table(grid)}" if grid.rows else ""


def _listed(title: str, lines: tuple[str, ...]) -> str:
    return f"### {title}\n\n" + "\n".join(f"- {escaped(line)}" for line in lines) if lines else ""


def _uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
