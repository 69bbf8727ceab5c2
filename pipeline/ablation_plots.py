"""The plot of a study: a line over a number, or points side by side, with intervals and seeds.

In:    the rows of `pipeline.ablation_results`; what is drawn is what the table says.
Out:   SVG bytes in the style of `pipeline.plots`.
Rerun: the same rows give the same bytes.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pipeline.ablation_results import Found, Row
from pipeline.plots import AFTER, BEFORE_ALL, INK, QUIET, TASK_COLOURS, figure, name_ends
from pipeline.significance import MEAN, Interval

X_LABELS = {
    "captions": "captions learned from (log scale)",
    "steps": "training steps",
}
Y_LABEL = "share of correct pictures"


def study_svg(found: Found) -> bytes:
    return bars(found.rows) if found.study.axis == "label" else line(found)


def line(found: Found) -> bytes:
    """The mean with its interval and each seed; every task thin."""
    axis, rows = found.study.axis, sorted(found.rows, key=lambda row: row.facts[found.study.axis])
    x = [row.facts[axis] for row in rows]
    with figure(X_LABELS[axis], Y_LABEL, height=3.9) as (axes, out):
        ends = []
        for number, task in enumerate(_tasks(rows)):
            colour = TASK_COLOURS[number % len(TASK_COLOURS)]
            shares = [row.shares[task].share for row in rows]
            axes.plot(x, shares, color=colour, linewidth=1.1, marker="o", markersize=2.4, alpha=0.8)
            ends.append((task, shares[-1], colour))
        means = [row.shares[MEAN] for row in rows]
        low, high = [m.low for m in means], [m.high for m in means]
        axes.fill_between(x, low, high, color=INK, alpha=0.10, linewidth=0)
        axes.errorbar(
            x,
            [m.share for m in means],
            _reach(means),
            color=INK,
            linewidth=2.4,
            elinewidth=1.2,
            capsize=3,
            marker="o",
            markersize=5,
        )
        _seeds(axes, [(place, row) for place, row in zip(x, rows, strict=True)])
        ends.append((f"mean {means[-1].share:.2f}", means[-1].share, INK))
        _scale(axes, axis, x, rows)
        _note(axes, rows, "left")
        name_ends(axes, ends)
    return out[0]


def _scale(axes: Any, axis: str, x: Sequence[float], rows: Sequence[Row]) -> None:
    if axis == "captions":
        axes.set_xscale("log")
        axes.minorticks_off()
    named = [
        f"{place:,.0f}\n{row.label}" if axis == "captions" else f"{place:,.0f}"
        for place, row in zip(x, rows, strict=True)
    ]
    axes.set_xticks(list(x), named)
    if axis == "steps":
        axes.set_xlim(left=0)
    axes.set_ylim(0, max(0.2, min(1.04, 1.08 * _top(rows))))


def bars(rows: Sequence[Row]) -> bytes:
    """A group a task and one for their mean, a colour a point."""
    tasks = [*_tasks(rows), MEAN]
    colours = [*BEFORE_ALL[-(len(rows) - 1) :], AFTER][-len(rows) :]
    width = 0.82 / len(rows)
    with figure("", Y_LABEL, height=3.9) as (axes, out):
        places = [n + (0.3 if task == MEAN else 0.0) for n, task in enumerate(tasks)]
        for number, row in enumerate(rows):
            x = [place + (number - (len(rows) - 1) / 2) * width for place in places]
            shares = [row.shares[task] for task in tasks]
            heights = [share.share for share in shares]
            colour = colours[number % len(colours)]
            axes.bar(x, heights, width * 0.92, color=colour, label=row.label)
            axes.errorbar(
                x, heights, _reach(shares), fmt="none", ecolor=INK, elinewidth=0.8, capsize=1.8
            )
            _seeds(axes, [(x[-1], row)])
        axes.set_xticks(places, [task.replace("_", "\n") for task in tasks])
        axes.set_ylim(0, max(0.2, min(1.04, 1.05 * _top(rows, of_all=True))))
        axes.tick_params(axis="x", length=0)
        axes.legend(loc="upper left", ncols=len(rows), bbox_to_anchor=(-0.02, 1.14))
        _note(axes, rows, "right")
    return out[0]


def _tasks(rows: Sequence[Row]) -> list[str]:
    return [task for task in rows[0].shares if task != MEAN] if rows else []


def _reach(shares: Sequence[Interval]) -> list[list[float]]:
    """How far the ends of each interval are from its share, below and above."""
    return [[s.share - s.low for s in shares], [s.high - s.share for s in shares]]


def _seeds(axes: Any, placed: Sequence[tuple[float, Row]]) -> None:
    """Each seed's mean, where there are several, as an open dot."""
    dots = [(x, mean) for x, row in placed if len(row.seeds) > 1 for mean in row.seeds.values()]
    axes.scatter(
        [x for x, _ in dots],
        [mean for _, mean in dots],
        s=22,
        facecolors="white",
        edgecolors=QUIET,
        linewidths=1.0,
        zorder=5,
    )


def _note(axes: Any, rows: Sequence[Row], side: Literal["left", "right"]) -> None:
    """What the marks are."""
    text = "95 % intervals over prompts"
    if any(len(row.seeds) > 1 for row in rows):
        text += "; ○ mean of each training seed"
    axes.annotate(
        text,
        (0.0 if side == "left" else 1.0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 8),
        textcoords="offset points",
        ha=side,
        color=QUIET,
        fontsize=8,
    )


def _top(rows: Sequence[Row], *, of_all: bool = False) -> float:
    """The highest mark; `of_all`: the tasks' intervals are drawn, too."""
    every = [
        share.high if of_all or task == MEAN else share.share
        for row in rows
        for task, share in row.shares.items()
    ]
    return max([0.0, *every, *(mean for row in rows for mean in row.seeds.values())])
