"""What a person sees of a run in the Prefect UI: a sheet, a table of counts, live progress.

In:    a stage's `Description` and this run's `Timing`.
Out:   one markdown and one table artifact a stage, a progress artifact for work that takes long.
Rerun: publishes again from the saved description, so that a cached run shows its pictures too.
"""

import base64
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from flows.patience import if_there, patiently
from pipeline.credentials import masked
from pipeline.description import Description, Timing, quarantined_grid, table
from pipeline.quarantine import Quarantined

_ARTIFACT_SECONDS = 2.0  # the server handles events at ~20 ms each: no update a batch
_LOG_SECONDS = 10.0


def show_page(key: str, text: str, description: str) -> None:
    """Markdown, without secrets; waits for a server that is away."""
    patiently(create_markdown_artifact, markdown=masked(text), key=key, description=description)


def show_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Rows that share their columns, without secrets; waits for a server that is away."""
    shown = [
        {name: masked(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    patiently(create_table_artifact, table=shown, key=key, description=description)


def picture(title: str, svg: bytes) -> str:
    """Markdown that holds the picture itself."""
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"


def publish(run: str, description: Description, timing: Timing) -> None:
    key = f"{run}-{description.stage}"
    show_page(key, description.markdown(timing, run=run), description.title)
    show_table(f"{key}-counts", counts(description, timing), "rows of this stage")


def counts(description: Description, timing: Timing) -> list[dict[str, str]]:
    """The rows of the counts table: what came in, stayed, left and why, and how fast."""
    rows = {"in": description.rows_in, "kept": description.kept, "rejected": description.rejected}
    rows |= {f"rejected: {why}": number for why, number in sorted(description.reasons.items())}
    rows |= {"made in this run": timing.made, "reused": timing.reused}
    table = [{"rows": name, "number": f"{number:,}"} for name, number in rows.items()]
    rate = f"{timing.made / timing.seconds:,.1f}" if timing.made and timing.seconds else "-"
    table.append({"rows": "seconds in this run", "number": f"{timing.seconds:.1f}"})
    table.append({"rows": "made a second", "number": rate})
    return table


def show_quarantined(key: str, given_up: Sequence[Quarantined]) -> None:
    """What could not be made and why, also for a stage that ends without a description."""
    rows = sum(each.rows for each in given_up)
    text = (
        f"# Quarantined shards\n\n**{len(given_up):,}** shards of **{rows:,}** rows could not be "
        f"made; the next run tries them again.\n\n{table(quarantined_grid(given_up))}\n"
    )
    show_page(f"{key}-quarantined", text, "what could not be made")


class Progress:
    """Told how far a stage is, it keeps a progress artifact and the log up to date."""

    def __init__(self, key: str, total: int, unit: str, first: int | None = None) -> None:
        self.key, self.total, self.unit = key, max(total, 1), unit
        self.started = self.shown = self.logged = time.monotonic()
        self.first = first  # where this run began; None: where it is when it first tells
        self.artifact: UUID | None = None

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.started = done, now
        last = done >= self.total
        if now - self.shown >= _ARTIFACT_SECONDS or (last and self.artifact):
            self.shown = now
            self._show(100 * done / self.total, self.sentence(done, now, note))
        if now - self.logged >= _LOG_SECONDS:
            self.logged = now
            get_run_logger().info(self.sentence(done, now, note))

    def sentence(self, done: int, now: float, note: str = "") -> str:
        rate = (done - (self.first or 0)) / max(now - self.started, 1e-9)
        left = f"{(self.total - done) / rate:,.0f} s left" if rate > 0 else "time left unknown"
        text = f"{done:,} of {self.total:,} {self.unit}, {rate:,.1f}/s, {left}"
        return f"{text}, {note}" if note else text

    def _show(self, percent: float, sentence: str) -> None:
        percent = min(percent, 100.0)
        if self.artifact is None:
            artifact = if_there(
                create_progress_artifact,
                progress=percent,
                key=f"{self.key}-progress",
                description=sentence,
            )
            # A coroutine only inside an async flow.
            self.artifact = artifact if isinstance(artifact, UUID) else None
        else:
            if_there(
                update_progress_artifact,
                artifact_id=self.artifact,
                progress=percent,
                description=sentence,
            )
