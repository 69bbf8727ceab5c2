"""A graph of stages as an SVG: boxes from top to bottom, an arrow for what each one reads.

In:    boxes in the order of the data, with the boxes they read and notes beside them.
Out:   SVG bytes in the style of the plots.
Rerun: the same boxes give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.plots import INK, LINE, MAIN, QUIET, sheet

WIDTH = 9.6  # inches
BOX_LEFT, BOX_WIDTH = 1.35, 4.1
NOTE_LEFT = BOX_LEFT + BOX_WIDTH + 0.45
LINE_HEIGHT, PADDING, GAP = 0.19, 0.13, 0.42
MAX_LINES = 5  # of a box, and of its notes
NOTE_LETTERS, LINE_LETTERS = 58, 56


@dataclass(frozen=True)
class Note:
    """A model or a data set that a stage used."""

    role: str
    name: str
    version: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Box:
    name: str
    label: str
    lines: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()  # names of boxes above
    notes: tuple[Note, ...] = ()
    colour: str = MAIN


def staircase(boxes: Sequence[Box]) -> bytes:
    """What is read from the box just above is a short arrow, from further up an arc on the left."""
    tops, y = {}, 0.2
    for box in boxes:
        tops[box.name] = y
        y += _height(box) + GAP
    with sheet(WIDTH, y - GAP + 0.2) as (axes, out):
        for number, box in enumerate(boxes):
            _draw_box(axes, box, tops[box.name])
            _draw_notes(axes, box, tops[box.name])
            for above in box.reads:
                source = next(b for b in boxes if b.name == above)
                start = tops[above] + _height(source)
                if number and boxes[number - 1].name == above:
                    _arrow(axes, start, tops[box.name])
                else:
                    steps = number - [b.name for b in boxes].index(above)
                    middle = tops[above] + _height(source) / 2
                    _arc(axes, middle, tops[box.name] + _height(box) / 2, steps, len(boxes))
    return out[0]


def _height(box: Box) -> float:
    lines = max(2 + min(len(box.lines), MAX_LINES), min(len(box.notes), MAX_LINES + 1))
    return lines * LINE_HEIGHT + 2 * PADDING


def _draw_box(axes: Any, box: Box, top: float) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    height = _height(box)
    axes.add_patch(
        FancyBboxPatch(
            (BOX_LEFT, top), BOX_WIDTH, height, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="white", edgecolor=LINE, linewidth=1.2,
        )
    )  # fmt: skip
    axes.add_patch(Rectangle((BOX_LEFT, top + 0.06), 0.06, height - 0.12, color=box.colour))
    y, x = top + PADDING + LINE_HEIGHT / 2, BOX_LEFT + 0.2
    axes.text(x, y, box.name, weight="bold", fontsize=10.5, va="center", color=INK)
    lines = [box.label, *box.lines[:MAX_LINES]]
    if len(box.lines) > MAX_LINES:
        lines[-1] = f"and {len(box.lines) - MAX_LINES + 1} more"
    for line in lines:
        y += LINE_HEIGHT
        axes.text(x, y, _short(line, LINE_LETTERS), fontsize=8, va="center", color=QUIET)


def _draw_notes(axes: Any, box: Box, top: float) -> None:
    if not box.notes:
        return
    shown = list(box.notes[:MAX_LINES])
    rest = len(box.notes) - len(shown)
    middle, count = top + _height(box) / 2, len(shown) + bool(rest)
    y = middle - (count - 1) / 2 * LINE_HEIGHT
    axes.plot([BOX_LEFT + BOX_WIDTH, NOTE_LEFT - 0.1], [middle, middle], color=LINE, linewidth=1.2)
    axes.plot(
        [NOTE_LEFT - 0.1] * 2, [y - LINE_HEIGHT / 2, y + (count - 0.5) * LINE_HEIGHT],
        color=LINE, linewidth=1.2,
    )  # fmt: skip
    for note in shown:
        words = f"{note.name} {note.version}".strip()
        licence = f" ({note.licence})" if note.licence else ""
        text = _short(f"{note.role}: {words}{licence}", NOTE_LETTERS)
        axes.text(NOTE_LEFT, y, text, fontsize=8, va="center", color=INK)
        y += LINE_HEIGHT
    if rest:
        axes.text(NOTE_LEFT, y, f"and {rest} more", fontsize=8, va="center", color=QUIET)


def _arrow(axes: Any, start: float, end: float) -> None:
    x = BOX_LEFT + 0.5
    axes.annotate(
        "", (x, end), xytext=(x, start),
        arrowprops={"arrowstyle": "-|>", "color": QUIET, "shrinkA": 1, "shrinkB": 1},
    )  # fmt: skip


def _arc(axes: Any, start: float, end: float, steps: int, most: int) -> None:
    """Farther ones swing wider, so that they do not cover one another."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    reach = BOX_LEFT - 0.25 - (BOX_LEFT - 0.4) * (steps - 1) / max(most - 1, 1)
    corners = [(BOX_LEFT, start), (reach, start), (reach, end), (BOX_LEFT - 0.02, end)]
    path = Path(corners, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axes.add_patch(
        FancyArrowPatch(
            path=path, arrowstyle="-|>", mutation_scale=9, color=QUIET, linewidth=0.9, alpha=0.8
        )
    )


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
