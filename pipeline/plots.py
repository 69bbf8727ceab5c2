"""Curves and bars as small SVG files in one style.

In:    numbers that a stage read from its tables or its training log.
Out:   SVG bytes, under `MAX_PLOT_BYTES`: few points, rounded numbers, text kept as text.
Rerun: the same numbers give the same bytes (no date, fixed ids).
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PLOT_BYTES = 60_000
MAX_POINTS = 400  # of one line: more than a screen shows

INK, QUIET, LINE = "#1f2937", "#6b7280", "#e3e6ea"
MAIN = "#2456c9"
# Six tasks told apart by people who see no red or no green, too (Okabe and Ito, darkened).
TASK_COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#0072b2", "#c79a00", "#8a63d2", "#666666")
BEFORE, AFTER = "#a9b4c4", MAIN
BEFORE_ALL = ("#e1e5eb", "#cfd6df", "#a9b4c4", "#8fb0e8")  # the last of them is nearest to AFTER
GOOD, BAD = "#16965a", "#d43838"


@dataclass(frozen=True)
class Series:
    """One line of a plot."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def loss_plot(
    steps: Sequence[float],
    losses: Sequence[float],
    *,
    label: str = "loss",
    log_x: bool = False,
    marks: Mapping[float, str] | None = None,
) -> bytes:
    """The logged loss, pale, and its smoothed course; `marks` are steps with a name (128 px)."""
    with figure("training step", label) as (axes, out):
        x, y = _finite(steps, losses)
        smooth = _smoothed(y)
        raw_x, raw_y = _thinned(x, y)
        axes.plot(raw_x, raw_y, color=MAIN, alpha=0.25, linewidth=0.9)
        axes.plot(*_thinned(x, smooth), color=MAIN, linewidth=1.9)
        if y:
            _note_end(axes, x[-1], smooth[-1], f"{smooth[-1]:.3g}")
            _limit(axes, smooth, y)
        if log_x and x and max(x) > 0:
            axes.set_xscale("log")
            axes.set_xlim(left=max(1, min(x)))
        _thousands(axes.xaxis)
        for step, name in (marks or {}).items():
            axes.axvline(step, color=QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
            place = (step, 1.0)
            axes.annotate(
                name,
                place,
                xycoords=("data", "axes fraction"),
                xytext=(4, -10),
                textcoords="offset points",
                color=QUIET,
            )
    return out[0]


def learning_curve(
    samples: Sequence[float],
    scores: Mapping[str, Sequence[float]],
    *,
    x_label: str = "samples seen",
) -> bytes:
    """Each task's share of correct pictures, thin, and their mean, thick, against samples seen."""
    tasks = {task: values for task, values in scores.items() if task != "mean"}
    mean = scores.get("mean") or [
        sum(values) / len(values) for values in zip(*tasks.values(), strict=True)
    ]
    with figure(x_label, "share of correct pictures", height=3.5) as (axes, out):
        ends = []
        for number, (task, values) in enumerate(tasks.items()):
            colour = TASK_COLOURS[number % len(TASK_COLOURS)]
            axes.plot(samples, values, color=colour, linewidth=1.2, marker="o", markersize=2.5)
            ends.append((task, values[-1] if values else 0.0, colour))
        axes.plot(samples, mean, color=INK, linewidth=2.6, marker="o", markersize=4)
        ends.append((f"mean {mean[-1]:.2f}" if mean else "mean", mean[-1] if mean else 0.0, INK))
        top = max([0.0, *(value for values in scores.values() for value in values), *mean])
        axes.set_ylim(0, max(0.2, min(1.04, 1.08 * top)))
        _thousands(axes.xaxis)
        name_ends(axes, ends)
    return out[0]


def curve_plot(
    series: Sequence[Series], x_label: str, y_label: str, *, level: float | None = None
) -> bytes:
    """Any few lines; `level` is a dashed line of no effect, such as 0.5 for an accuracy."""
    with figure(x_label, y_label) as (axes, out):
        if level is not None:
            axes.axhline(level, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        _draw_series(axes, series, (MAIN, *TASK_COLOURS))
        _thousands(axes.xaxis)
    return out[0]


def score_bars(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    labels: tuple[str, str] = ("student", "aligned"),
) -> bytes:
    """Share of correct pictures per task, before and after alignment, with the difference."""
    tasks = [*(task for task in before if task != "mean"), *(["mean"] if "mean" in before else [])]
    with figure("", "share of correct pictures", height=3.4) as (axes, out):
        places = [float(n) + (0.35 if task == "mean" else 0) for n, task in enumerate(tasks)]
        for offset, values, colour, label in (
            (-0.19, before, BEFORE, labels[0]),
            (0.19, after, AFTER, labels[1]),
        ):
            heights = [values.get(task, 0.0) for task in tasks]
            axes.bar([x + offset for x in places], heights, 0.36, color=colour, label=label)
        for x, task in zip(places, tasks, strict=True):
            difference = after.get(task, 0.0) - before[task]
            top = max(before[task], after.get(task, 0.0))
            axes.annotate(
                f"{difference:+.2f}",
                (x, top),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                color=GOOD if difference > 0.0049 else BAD if difference < -0.0049 else QUIET,
            )
        axes.set_xticks(places, [task.replace("_", " ").replace(" ", "\n", 1) for task in tasks])
        axes.set_ylim(0, max([0.1, *before.values(), *after.values()]) * 1.16)
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.14))
    return out[0]


def checkpoint_bars(
    shares: Mapping[str, Mapping[str, tuple[float, float, float]]],
) -> bytes:
    """Share of correct pictures a task and checkpoint, with the ends of its interval."""
    names = list(shares)
    tasks = [task for task in shares[names[-1]] if not task.endswith("mean")]
    tasks += [task for task in shares[names[-1]] if task.endswith("mean")]
    colours = [*BEFORE_ALL[-(len(names) - 1) :], AFTER] if len(names) > 1 else [AFTER]
    width = 0.8 / len(names)
    top = 0.1
    with figure("", "share of correct pictures", height=3.6) as (axes, out):
        places = [n + (0.3 if task.endswith("mean") else 0.0) for n, task in enumerate(tasks)]
        for number, name in enumerate(names):
            known = [
                (x, shares[name][t])
                for x, t in zip(places, tasks, strict=True)
                if t in shares[name]
            ]
            x = [place + (number - (len(names) - 1) / 2) * width for place, _ in known]
            heights = [share for _, (share, _, _) in known]
            reach = [
                [share - low for _, (share, low, _) in known],
                [high - share for _, (share, _, high) in known],
            ]
            colour = colours[min(number, len(colours) - 1)]
            axes.bar(x, heights, width * 0.94, color=colour, label=name)
            axes.errorbar(x, heights, reach, fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.8)
            top = max([top, *(high for _, (_, _, high) in known)])
        axes.set_xticks(places, [_in_two_lines(task) for task in tasks])
        axes.set_ylim(0, min(top * 1.08, 1.04))
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", ncols=len(names), bbox_to_anchor=(1, 1.14))
    return out[0]


def _in_two_lines(task: str) -> str:
    return task.replace("_", " ").replace("/", "\n", 1).replace(" ", "\n", 1)


def preference_plot(
    steps: Sequence[float],
    accuracy: Sequence[float],
    winner_drift: Sequence[float],
    loser_drift: Sequence[float],
) -> bytes:
    """Diffusion-DPO's two health signs: implicit accuracy, and each side's error against the
    reference's; a rising winner error means that the policy forgets what it knew."""
    with figure("", "", columns=2) as (pair, out):
        left, right = pair
        left.axhline(0.5, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        x, y = _finite(steps, accuracy)
        left.plot(*_thinned(x, y), color=MAIN, alpha=0.25, linewidth=0.9)
        left.plot(*_thinned(x, _smoothed(y)), color=MAIN, linewidth=1.9)
        left.set_ylim(0, 1.02)
        left.set_ylabel("implicit accuracy")
        right.axhline(0.0, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        lines = [Series("winners", steps, winner_drift), Series("losers", steps, loser_drift)]
        _draw_series(right, lines, (GOOD, BAD))
        right.set_ylabel("error minus reference's")
        for axes in pair:
            axes.set_xlabel("training step")
            _thousands(axes.xaxis)
    return out[0]


def reward_plot(
    steps: Sequence[float], margins: Sequence[float], divergence: Sequence[float]
) -> bytes:
    """How far apart the policy's rewards of winner and loser are, and what it costs: how much
    worse it explains the pictures than its reference."""
    with figure("training step", "", columns=2) as (pair, out):
        for axes, values, name in zip(
            pair,
            (margins, divergence),
            ("reward margin", "KL proxy: error minus reference's"),
            strict=True,
        ):
            axes.axhline(0.0, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
            _draw_series(axes, [Series(name, steps, values)], (MAIN,))
            axes.set_ylabel(name)
            _thousands(axes.xaxis)
    return out[0]


def bars(names: Sequence[str], heights: Sequence[float], x_label: str, y_label: str) -> bytes:
    """One bar a name; of many names every few are written."""
    with figure(x_label, y_label) as (axes, out):
        axes.bar(range(len(names)), heights, 0.86, color=MAIN)
        every = -(-len(names) // 24) or 1
        axes.set_xticks(range(0, len(names), every), list(names)[::every])
        axes.tick_params(axis="x", length=0)
        _thousands(axes.yaxis)
    return out[0]


def grouped_bars(groups: Mapping[str, Mapping[str, float]], y_label: str) -> bytes:
    """A row of bars, a colour a group, the names upright beneath."""
    with figure("", y_label, height=3.6) as (axes, out):
        place = 0.0
        names: list[tuple[float, str]] = []
        for number, (group, heights) in enumerate(groups.items()):
            places = [place + index for index in range(len(heights))]
            colour = TASK_COLOURS[number % len(TASK_COLOURS)]
            axes.bar(places, list(heights.values()), 0.82, color=colour, label=group)
            names += zip(places, heights, strict=True)
            place += len(heights) + 1
        axes.set_xticks([x for x, _ in names], [name for _, name in names], rotation=90)
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper right", ncols=len(groups), bbox_to_anchor=(1, 1.14))
        _thousands(axes.yaxis)
    return out[0]


def stage_bars(
    names: Sequence[str],
    groups: Mapping[str, Sequence[float]],
    notes: Sequence[str],
    x_label: str,
    *,
    stacked: bool = False,
) -> bytes:
    """A bar a stage, lying, the first on top; of each group one, behind or beside each other."""
    height = 1.3 + (0.3 if stacked else 0.42) * len(names)
    with figure(x_label, "", height=height) as (axes, out):
        places = [float(number) for number in range(len(names))]
        ends = [0.0] * len(names)
        thick = 0.62 if stacked else 0.36
        colours = (MAIN, BEFORE) if stacked else (BEFORE, MAIN)
        for number, (label, values) in enumerate(groups.items()):
            beside = 0.0 if stacked else (number - (len(groups) - 1) / 2) * thick
            left = ends if stacked else [0.0] * len(names)
            axes.barh(
                [y + beside for y in places],
                values,
                thick,
                left=list(left),
                color=colours[number],
                label=label,
            )
            tops = [a + b for a, b in zip(left, values, strict=True)]
            ends = tops if stacked else [max(a, b) for a, b in zip(ends, tops, strict=True)]
        for y, end, note in zip(places, ends, notes, strict=True):
            axes.annotate(
                note, (end, y), xytext=(6, 0), textcoords="offset points", va="center", color=INK
            )
        axes.set_yticks(places, list(names))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlim(0, max([*ends, 1e-9]) * 1.24)  # room for the notes
        _thousands(axes.xaxis)
        if len(groups) > 1:
            axes.legend(loc="lower right", ncols=1)
    return out[0]


def histogram(values: Sequence[float], bins: int, x_label: str, threshold: float) -> bytes:
    """Scores from 0 to 1, green from the threshold on; the bin that it cuts counts as its start."""
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int(value * bins + 1e-6))] += 1
    starts = [number / bins for number in range(bins)]
    colours = [GOOD if start >= threshold - 1e-6 else BAD for start in starts]
    with figure(x_label, "pictures", height=2.6) as (axes, out):
        axes.bar(starts, counts, 0.9 / bins, align="edge", color=colours)
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlim(0, 1)
        _thousands(axes.yaxis)
    return out[0]


# --- style --------------------------------------------------------------------------------------

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: sizes do not vary by machine
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightgen",
    "axes.edgecolor": "#b6bcc6",
    "axes.labelcolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.015,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}


@contextmanager
def figure(
    x_label: str, y_label: str, *, height: float = 3.1, columns: int = 1
) -> "Iterator[tuple[Any, list[bytes]]]":
    """Axes to draw on, and a list that holds the SVG's bytes afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out: list[bytes] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, columns)
        for each in axes if columns > 1 else [axes]:
            each.grid(visible=False, axis="x")
            each.set_xlabel(x_label)
            each.set_ylabel(y_label)
        yield axes, out
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        out.append(_light(file.getvalue()))


_NEEDLESS = re.compile(r"(-?\d+\.\d{2})\d+")


def _light(svg: str) -> bytes:
    """Drop the preamble and needless digits, and name the fonts that a browser has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Inside tags alone: what stands between them is text that a person reads.
    svg = re.sub(r"<[^>]*>", lambda tag: _NEEDLESS.sub(r"\1", tag[0]), svg)
    svg = svg.replace("'DejaVu Sans'", "Inter, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans'")
    return re.sub(r"\n\s*", "\n", svg).encode()


def _draw_series(axes: Any, series: Sequence[Series], colours: Sequence[str]) -> None:
    for number, line in enumerate(series):
        x, y = _finite(line.x, line.y)
        colour = colours[number % len(colours)]
        if len(y) > 60:
            axes.plot(*_thinned(x, y), color=colour, alpha=0.25, linewidth=0.9)
            y = _smoothed(y)
        axes.plot(*_thinned(x, y), color=colour, linewidth=1.9, label=line.label)
    if len(series) > 1:
        axes.legend(loc="best")


def _note_end(axes: Any, x: float, y: float, text: str) -> None:
    axes.plot([x], [y], marker="o", markersize=4, color=MAIN, clip_on=False)
    axes.annotate(
        text,
        (x, y),
        xytext=(-2, 9),
        textcoords="offset points",
        ha="right",
        color=INK,
        weight="bold",
    )


def name_ends(axes: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write each line's name at its right end, moved apart where they would touch."""
    low, high = axes.get_ylim()
    apart = (high - low) * 0.062
    placed = low - apart
    spots: list[tuple[str, float, str]] = []
    for name, value, colour in sorted(ends, key=lambda end: end[1]):
        placed = max(value, placed + apart)
        spots.append((name, placed, colour))
    excess = max(0.0, placed - high)
    for name, y, colour in spots:
        axes.annotate(
            name.replace("_", " "),
            (1.0, y - excess),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            weight="bold" if name.startswith("mean") else "normal",
            annotation_clip=False,
        )


def _limit(axes: Any, smooth: Sequence[float], raw: Sequence[float]) -> None:
    """Leave out the first steps' peak, which would flatten the rest of the curve."""
    settled = smooth[len(smooth) // 50 :]
    low, high = min(settled), max(settled)
    room = max(high - low, 1e-9)
    axes.set_ylim(max(min(raw), low - 0.35 * room), min(max(raw), high + 0.5 * room) + 1e-9)


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


# --- numbers ------------------------------------------------------------------------------------


def _finite(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Without the points that are no numbers: a diverged step must not cost the plot."""
    pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if abs(b) < float("inf")]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _smoothed(values: Sequence[float]) -> list[float]:
    """A running mean over a twentieth of the curve, of fewer points near its ends."""
    half = len(values) // 40
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    smooth = []
    for index in range(len(values)):
        start, end = max(0, index - half), min(len(values), index + half + 1)
        smooth.append((sums[end] - sums[start]) / (end - start))
    return smooth


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most `MAX_POINTS` points, evenly chosen, the last one among them."""
    stride = -(-len(x) // MAX_POINTS) or 1
    keep = sorted({*range(0, len(x), stride), *([len(x) - 1] if x else [])})
    return [x[index] for index in keep], [y[index] for index in keep]


@contextmanager
def sheet(width: float, height: float) -> "Iterator[tuple[Any, list[bytes]]]":
    """An empty page in this style, one unit an inch from the upper left; SVG bytes afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out: list[bytes] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        yield axes, out
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        out.append(_light(file.getvalue()))
