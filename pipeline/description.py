"""What a person sees of a stage: counts, reasons, sheets, tables, curves and lineage.

In:    numbers and pictures that a stage's `describe` computed from its tables alone.
Out:   a folder (description.json, picture-<n>.jpg, plot-<n>.svg) and the stage's artifact in
       Markdown, at most `MAX_MARKDOWN_BYTES`, with its pictures inside as `data:` URIs.
Rerun: the same description writes the same files; description.json comes last, so a folder
       that has it is whole.
"""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.buckets import BucketPath
from pipeline.disk import writing
from pipeline.pictures import shrink
from pipeline.quarantine import REASON, Quarantined

MAX_MARKDOWN_BYTES = 300_000
MAX_TABLE_ROWS = 60  # of a table inside the artifact; the rest is counted in a last row
RECORD = "description.json"
SPACE = "\u00a0"  # not as an entity: the UI shows that one as it is written

# Lengths of the bar under the heading: kept, then the reasons from most to least frequent.
KEPT_COLOUR = "#16965a"
REASON_COLOURS = ("#d43838", "#e8743b", "#eda63c", "#b4577f", "#8f6bb3", "#7b8494")


@dataclass(frozen=True)
class Grid:
    """A table of text cells."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    title: str
    jpeg: bytes


@dataclass(frozen=True)
class Plot:
    title: str
    svg: bytes


@dataclass(frozen=True)
class Timing:
    """What this run did for a stage; a reused stage made nothing."""

    made: int
    reused: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows made a second."""
        return self.made / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Description:
    stage: str
    title: str
    rows_in: int
    kept: int
    rejected: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[Grid, ...] = ()
    pictures: tuple[Picture, ...] = ()
    plots: tuple[Plot, ...] = ()

    def __post_init__(self) -> None:
        if self.rows_in != self.kept + self.rejected:
            raise ValueError(
                f"{self.stage}: {self.rows_in} rows in, but {self.kept} kept and "
                f"{self.rejected} rejected make {self.kept + self.rejected}"
            )
        if self.reasons and sum(self.reasons.values()) != self.rejected:
            raise ValueError(
                f"{self.stage}: {self.rejected} rows rejected, but the reasons count "
                f"{sum(self.reasons.values())}"
            )

    def without(self, lacking: Sequence[Quarantined]) -> "Description":
        """The same, where so many shards could not be made: their rows are rejected, too."""
        if not lacking:
            return self
        shards = f"{len(lacking)} shard{'s' if len(lacking) > 1 else ''}"
        # A stage that has a row for each one above it has counted them itself.
        rows = 0 if REASON in self.reasons else sum(each.rows for each in lacking)
        return replace(
            self,
            rows_in=self.rows_in + rows,
            rejected=self.rejected + rows,
            reasons={**self.reasons, REASON: self.reasons.get(REASON, 0) + rows},
            facts={**self.facts, "quarantined": f"{shards}; the next run tries again"},
            tables=(quarantined_grid(lacking), *self.tables),
        )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(self.pictures):
            write_whole(folder / f"picture-{number}.jpg", picture.jpeg)
        for number, plot in enumerate(self.plots):
            write_whole(folder / f"plot-{number}.svg", plot.svg)
        record = asdict(self) | {
            "pictures": [picture.title for picture in self.pictures],
            "plots": [plot.title for plot in self.plots],
        }
        write_whole(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())

    @staticmethod
    def load(folder: Path) -> "Description":
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        tables = tuple(
            Grid(grid["title"], tuple(grid["header"]), tuple(map(tuple, grid["rows"])))
            for grid in record.pop("tables")
        )
        pictures = tuple(
            Picture(title, (folder / f"picture-{number}.jpg").read_bytes())
            for number, title in enumerate(record.pop("pictures"))
        )
        plots = tuple(
            Plot(title, (folder / f"plot-{number}.svg").read_bytes())
            for number, title in enumerate(record.pop("plots"))
        )
        return Description(**record, tables=tables, pictures=pictures, plots=plots)

    def markdown(self, timing: Timing | None = None, *, run: str = "") -> str:
        """The stage's artifact; pictures lose quality, then plots go, before it grows too big."""
        pictures, plots = self.pictures, self.plots
        text = _page(self, timing, run, pictures, plots)
        while len(text.encode()) > MAX_MARKDOWN_BYTES and (pictures or plots):
            bare = len(_page(self, timing, run, (), plots).encode())
            room = (MAX_MARKDOWN_BYTES - bare) * 3 // 4  # base64 is four bytes for three
            share = room // max(1, len(pictures)) - 200
            if pictures and share > 6_000:
                pictures = tuple(Picture(p.title, shrink(p.jpeg, share)) for p in pictures)
            elif plots:
                plots = plots[:-1]
            else:
                pictures = pictures[:-1]
            text = _page(self, timing, run, pictures, plots)
        return text


def quarantined_grid(lacking: Sequence[Quarantined]) -> Grid:
    cells = tuple((q.name[:40], f"{q.rows:,}", f"{q.tries:,}", q.reason) for q in lacking)
    return Grid("Quarantined shards", ("shard", "rows", "tries", "reason"), cells)


def description_folder(root: Path, stage: str, content: str) -> Path:
    return root / "descriptions" / f"{stage}-{content[:16]}"


def write_whole(path: Path, data: bytes) -> None:
    """The file appears by rename, after its bytes are on the disk."""
    if isinstance(path, BucketPath):
        path.write_bytes(data)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


# --- the page -----------------------------------------------------------------------------------


def _page(
    description: Description,
    timing: Timing | None,
    run: str,
    pictures: Sequence[Picture],
    plots: Sequence[Plot],
) -> str:
    name = f"{description.stage}/{run}" if run else description.stage
    parts = [
        f"# {escaped(description.title)}",
        f"`{name}` {SPACE} {rows_line(description)}",
        _image("kept and rejected", "svg+xml", share_bar(description)),
        work_line(timing) if timing else "",
    ]
    # The first sheet tells most; numbers come before the others.
    first, *others = [_titled(p.title, _image(p.title, "jpeg", p.jpeg)) for p in pictures] or [""]
    parts.append(first)
    left_out = len(description.pictures) - len(pictures) + len(description.plots) - len(plots)
    if left_out:
        parts.append(f"*{left_out} more in the run's report: they would make this page too large.*")
    if description.reasons:
        parts.append(_titled("Why rows were rejected", table(reasons_grid(description))))
    parts += [_titled(grid.title, table(grid)) for grid in description.tables]
    parts += [_titled(p.title, _image(p.title, "svg+xml", p.svg)) for p in plots]
    parts += others
    if description.facts:
        facts = tuple((name, value) for name, value in description.facts.items())
        parts.append(_titled("Lineage", table(Grid("", ("what", "which"), facts))))
    return "\n\n".join(part for part in parts if part) + "\n"


def rows_line(description: Description) -> str:
    return one_line(
        f"**{description.rows_in:,}** rows in",
        f"**{description.kept:,}** kept",
        f"**{description.rejected:,}** rejected",
    )


def work_line(timing: Timing) -> str:
    rate = [f"**{_rate(timing.rate)}** rows a second"] if timing.rate else []
    return one_line(
        f"**{timing.made:,}** made in this run",
        f"**{timing.reused:,}** reused",
        f"**{timing.seconds:,.1f}** seconds",
        *rate,
    )


def one_line(*parts: str) -> str:
    """Parts with a dot between them; none is broken inside."""
    return f" {SPACE}·{SPACE} ".join(part.replace(" ", SPACE) for part in parts)


def reasons_grid(description: Description) -> Grid:
    rows = tuple(
        (reason, f"{count:,}", f"{count / max(1, description.rows_in):.1%}")
        for reason, count in ordered_reasons(description)
    )
    return Grid("Why rows were rejected", ("reason", "rows", "of rows in"), rows)


def ordered_reasons(description: Description) -> list[tuple[str, int]]:
    """From most to least frequent; equal counts by name."""
    return sorted(description.reasons.items(), key=lambda entry: (-entry[1], entry[0]))


def share_bar(description: Description, width: int = 1000, height: int = 14) -> bytes:
    """One thin bar: the share kept in green, then each reason."""
    shares = [(KEPT_COLOUR, description.kept)]
    reasons = ordered_reasons(description) or [("rejected", description.rejected)]
    last = len(REASON_COLOURS) - 1
    shares += [(REASON_COLOURS[min(i, last)], count) for i, (_, count) in enumerate(reasons)]
    total = max(1, description.rows_in)
    x, boxes = 0.0, []
    for colour, count in shares:
        span = width * count / total
        boxes.append(f'<rect x="{x:.1f}" width="{span:.1f}" height="{height}" fill="{colour}"/>')
        x += span
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" preserveAspectRatio="none">'
        f'<clipPath id="c"><rect width="{width}" height="{height}" rx="4"/></clipPath>'
        f'<g clip-path="url(#c)"><rect width="{width}" height="{height}" fill="#e5e7eb"/>'
        f"{''.join(boxes)}</g></svg>"
    ).encode()


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _titled(title: str, body: str) -> str:
    return f"### {escaped(title)}\n\n{body}" if title else body


def _image(title: str, kind: str, data: bytes) -> str:
    return f"![{escaped(title)}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def table(grid: Grid) -> str:
    """A table in Markdown; columns of numbers stand on the right."""
    shown = grid.rows[:MAX_TABLE_ROWS]
    numeric = numeric_columns(grid)
    lines = [_row(grid.header), _row(["---:" if right else "---" for right in numeric], mark=True)]
    lines += [_row(row) for row in shown]
    if len(grid.rows) > len(shown):
        rest = f"{len(grid.rows) - len(shown):,} more rows"
        lines.append(_row([rest, *[""] * (len(grid.header) - 1)]))
    return "\n".join(lines)


def numeric_columns(grid: Grid) -> list[bool]:
    return [
        bool(grid.rows) and all(_is_number(row[column]) for row in grid.rows)
        for column in range(len(grid.header))
    ]


def _row(cells: Sequence[str], mark: bool = False) -> str:
    return "| " + " | ".join(cells if mark else [escaped(cell) for cell in cells]) + " |"


def _is_number(text: str) -> bool:
    """Whether it stands on the right: a number, perhaps with its interval in brackets."""
    first = text.split(" (")[0] if text.endswith(")") else text
    stripped = first.strip().lstrip("<+-−≤ ").rstrip("%").replace(",", "")
    return stripped in ("", "-", "–", "?") or stripped.replace(".", "", 1).isdigit()


def escaped(text: str) -> str:
    """Text of the data shows as it is: no markup, no break of a table's row."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~":
        flat = flat.replace(mark, "\\" + mark)
    return flat
