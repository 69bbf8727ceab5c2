"""The report of a run: `report.json` for machines, `report.html` and `samples.jpg` for people.

In:    the stages' manifests, descriptions and timings, and the scores of the checkpoints.
Out:   <root>/report/. Each number is one of theirs; none is measured here. report.json, schema 1:
       {"schema", "run", "stages": {stage: `StageReport`}, "totals": `Totals`,
        "scores": {checkpoint: {task: share of correct pictures, "mean": mean over the tasks}},
        "intervals": {checkpoint: {task: [low, high]}} of 95 %,
        "strict": {checkpoint: {task: [share, low, high]}}, right and with no object too many,
        "comparisons": [the last checkpoint against each before it, a row a task, on the same
        prompts and seeds: `pipeline.significance.Comparison`], "strict_comparisons": the same,
        "ledger": what was planned and what it cost (`pipeline.costs.Costs.to_json`), where told}
       `made`, `reused` and `seconds` are null for a stage that this run did not touch.
Rerun: the files are replaced, each by rename.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from pipeline.config import RunConfig
from pipeline.description import (
    KEPT_COLOUR,
    REASON_COLOURS,
    Description,
    Grid,
    Timing,
    numeric_columns,
    one_line,
    ordered_reasons,
    table,
    write_whole,
)
from pipeline.roots import root_of

if TYPE_CHECKING:
    from pipeline.costs import Costs
    from pipeline.standings import Evidence
    from pipeline.tables import Manifest

SCHEMA = 1
TEMPLATE = Path(__file__).with_name("report.html.j2")
STRICT_MEAN = "mean, no object too many"
SAMPLES_FROM = ("evaluate", "dpo", "preferences", "student", "images")  # best first

Scores = Mapping[str, Mapping[str, float]]  # checkpoint -> task -> share, worst checkpoint first


class TableReport(TypedDict):
    table: str
    version: int
    rows: int
    content: str


class StageReport(TypedDict):
    rows_in: int
    kept: int
    rejected: int
    reasons: dict[str, int]
    made: int | None
    reused: int | None
    seconds: float | None
    tables: dict[str, TableReport]
    checkpoints: dict[str, str]
    facts: dict[str, str]


class Totals(TypedDict):
    rows_in: int
    kept: int
    rejected: int
    made: int
    reused: int
    seconds: float


class Report(TypedDict):
    schema: int
    run: str
    stages: dict[str, StageReport]
    scores: dict[str, dict[str, float]]
    totals: Totals
    intervals: NotRequired[dict[str, dict[str, list[float]]]]  # of the scores: low, high
    comparisons: NotRequired[list[dict[str, Any]]]
    strict: NotRequired[dict[str, dict[str, list[float]]]]  # share, low, high
    strict_comparisons: NotRequired[list[dict[str, Any]]]
    ledger: NotRequired[dict[str, Any]]
    note: NotRequired[str]  # of the run, where it has one: what to know before anything else


def write_report(
    config: RunConfig,
    manifests: "Mapping[str, Manifest]",
    descriptions: Mapping[str, Description],
    timings: Mapping[str, Timing],
    scores: Scores | None = None,
    *,
    evidence: "Evidence | None" = None,
    costs: "Costs | None" = None,
) -> Path:
    """Write the three files and return report.html's path; the others lie beside it."""
    folder = root_of(config.root) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(
        config.name, manifests, descriptions, timings, scores, evidence, note=config.note
    )
    if costs:
        report["ledger"] = costs.to_json()
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "report.json", text.encode())
    samples = best_samples(descriptions)
    if samples:
        write_whole(folder / "samples.jpg", samples)
    page = folder / "report.html"
    write_whole(page, html(report, descriptions, costs).encode())
    return page


def build_report(
    run: str,
    manifests: "Mapping[str, Manifest]",
    descriptions: Mapping[str, Description],
    timings: Mapping[str, Timing],
    scores: Scores | None = None,
    evidence: "Evidence | None" = None,
    *,
    note: str = "",
) -> Report:
    """Stages in the order of their descriptions, which is the order of the data."""
    report = Report(
        schema=SCHEMA,
        run=run,
        stages={
            stage: _stage(description, manifests.get(stage), timings.get(stage))
            for stage, description in descriptions.items()
        },
        scores={name: _with_mean(shares) for name, shares in (scores or {}).items()},
        totals=Totals(
            rows_in=sum(each.rows_in for each in descriptions.values()),
            kept=sum(each.kept for each in descriptions.values()),
            rejected=sum(each.rejected for each in descriptions.values()),
            made=sum(each.made for each in timings.values()),
            reused=sum(each.reused for each in timings.values()),
            seconds=round(sum(each.seconds for each in timings.values()), 3),
        ),
    )
    if evidence is not None:
        report["intervals"] = {
            name: {task: [each.low, each.high] for task, each in tasks.items()}
            for name, tasks in evidence.intervals.items()
        }
        report["comparisons"] = [row.to_json() for row in evidence.comparisons]
        report["strict"] = {
            name: {task: [each.share, each.low, each.high] for task, each in tasks.items()}
            for name, tasks in evidence.strict.items()
        }
        report["strict_comparisons"] = [row.to_json() for row in evidence.strict_comparisons]
    return report | {"note": note} if note else report


def best_samples(descriptions: Mapping[str, Description]) -> bytes | None:
    """The first sheet of the latest stage that drew: a stage puts its best sheet first."""
    for stage in SAMPLES_FROM:
        if stage in descriptions and descriptions[stage].pictures:
            return descriptions[stage].pictures[0].jpeg
    return None


def markdown(report: Report, descriptions: Mapping[str, Description]) -> str:
    """The whole run as one artifact: scores, samples, and a line a stage."""
    totals = report["totals"]
    parts = [
        f"# The run {report['run']}",
        *([f"> {report['note']}"] if "note" in report else []),
        one_line(
            f"**{totals['made']:,}** rows made",
            f"**{totals['reused']:,}** reused",
            f"**{totals['rejected']:,}** rejected",
            f"**{totals['seconds']:,.0f}** s",
        ),
    ]
    if report["scores"]:
        grid = scores_grid(*shown_scores(report))
        parts.append("### Share of correct pictures\n\n" + table(grid))
    samples = best_samples(descriptions)
    if samples:
        parts.append(f"![samples]({_uri('jpeg', samples)})")
    parts.append("### Stages\n\n" + table(stages_grid(report)))
    return "\n\n".join(parts) + "\n"


def shown_scores(report: Report) -> tuple[Scores, dict[str, dict[str, list[float]]]]:
    """Shares and their ends, below the mean also that of pictures with no object too many."""
    scores = {name: dict(shares) for name, shares in report["scores"].items()}
    ends = {name: dict(tasks) for name, tasks in report.get("intervals", {}).items()}
    for name, tasks in report.get("strict", {}).items():
        share, *between = tasks["mean"]
        scores[name][STRICT_MEAN], ends[name][STRICT_MEAN] = share, between
    return scores, ends


def scores_grid(
    scores: Scores, intervals: Mapping[str, Mapping[str, Sequence[float]]] | None = None
) -> Grid:
    """A row a task, a column a checkpoint; two or more end in the difference of the last two."""
    names = list(scores)
    rows = []
    for task in scores[names[-1]]:
        cells = [_share(scores, intervals or {}, name, task) for name in names]
        difference = _difference(scores, task)
        rows.append((task.replace("_", " "), *cells, *difference))
    header = ("task", *names, *(["difference"] if len(names) > 1 else []))
    return Grid("Share of correct pictures", header, tuple(rows))


def _share(
    scores: Scores,
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
    name: str,
    task: str,
) -> str:
    if task not in scores[name]:
        return "-"
    ends = intervals.get(name, {}).get(task)
    between = f" ({ends[0]:.3f}–{ends[1]:.3f})" if ends else ""
    return f"{scores[name][task]:.3f}{between}"


def stages_grid(report: Report) -> Grid:
    header = ("stage", "rows in", "kept", "rejected", "made", "reused", "seconds")
    rows = tuple(
        (
            stage,
            *(f"{count:,}" for count in (each["rows_in"], each["kept"], each["rejected"])),
            *("-" if count is None else f"{count:,}" for count in (each["made"], each["reused"])),
            "-" if each["seconds"] is None else f"{each['seconds']:,.1f}",
        )
        for stage, each in report["stages"].items()
    )
    return Grid("Stages", header, rows)


def html(
    report: Report, descriptions: Mapping[str, Description], costs: "Costs | None" = None
) -> str:
    """One file with its pictures inside; all text is escaped by the template."""
    import jinja2

    from pipeline import cost_page

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"uri": _uri, "count": _count, "numeric": numeric_columns}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    scores, ends = shown_scores(report)
    return template.render(
        report=report,
        scores=scores,
        ends=ends,
        descriptions=descriptions,
        bars=_bars(report["scores"], report.get("intervals")),
        segments={stage: _segments(each) for stage, each in descriptions.items()},
        samples=best_samples(descriptions),
        gain=_difference(report["scores"], "mean"),
        costs=costs,
        spent=cost_page,
    )


def _stage(
    description: Description, manifest: "Manifest | None", timing: Timing | None
) -> StageReport:
    snapshots = manifest.snapshots if manifest else {}
    return StageReport(
        rows_in=description.rows_in,
        kept=description.kept,
        rejected=description.rejected,
        reasons=dict(ordered_reasons(description)),
        made=timing.made if timing else None,
        reused=timing.reused if timing else None,
        seconds=round(timing.seconds, 3) if timing else None,
        tables={
            name: TableReport(
                table=snapshot.table,
                version=snapshot.version,
                rows=snapshot.rows,
                content=snapshot.content,
            )
            for name, snapshot in snapshots.items()
        },
        checkpoints=dict(manifest.checkpoints) if manifest else {},
        facts=dict(description.facts),
    )


def _with_mean(shares: Mapping[str, float]) -> dict[str, float]:
    tasks = {task: share for task, share in shares.items() if task != "mean"}
    mean = shares.get("mean", sum(tasks.values()) / max(1, len(tasks)))
    return {**tasks, "mean": mean}


def _difference(scores: Scores, task: str) -> list[str]:
    """The last checkpoint's share less the one's before it; empty where there is no pair."""
    if len(scores) < 2:
        return []
    before, after = list(scores.values())[-2:]
    return [f"{after[task] - before[task]:+.3f}" if task in before and task in after else "-"]


def _bars(
    scores: Scores, intervals: Mapping[str, Mapping[str, Sequence[float]]] | None
) -> bytes | None:
    if len(scores) < 2:
        return None
    from pipeline.plots import checkpoint_bars, score_bars

    if intervals:
        return checkpoint_bars(
            {
                name: {
                    task: (share, intervals[name][task][0], intervals[name][task][1])
                    for task, share in tasks.items()
                }
                for name, tasks in scores.items()
            }
        )
    (before, after) = list(scores)[-2:]
    return score_bars(scores[before], scores[after], labels=(before, after))


def _segments(description: Description) -> list[tuple[str, str, int]]:
    """Colour, name and rows of each part of a stage's bar."""
    reasons = ordered_reasons(description)
    if not reasons and description.rejected:
        reasons = [("rejected", description.rejected)]
    last = len(REASON_COLOURS) - 1
    rejected = [(REASON_COLOURS[min(i, last)], *reason) for i, reason in enumerate(reasons)]
    return [(KEPT_COLOUR, "kept", description.kept), *rejected]


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _count(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
