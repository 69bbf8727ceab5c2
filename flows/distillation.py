"""The whole way: captions, images, verdicts, features, student, preferences, dpo, evaluate.

In:    a run and overrides by dotted path.
Out:   the manifests of all stages, report.json and report.html in the run's root.
Rerun: every stage that is there already is reused; see `flows.stages`.
"""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from flows.dataset import captions, features, images, verdicts
from flows.evaluation import evaluate
from flows.stages import Handed, manifest_of, run_name
from flows.training import dpo, preferences, student
from pipeline import preflight
from pipeline.config import RunConfig, load_run
from pipeline.description import Description, Timing, description_folder, write_whole
from pipeline.report import write_report
from pipeline.tables import Manifest

STAGES = (captions, images, verdicts, features, student, preferences, dpo, evaluate)
SHOWN = ("evaluate", "dpo", "student", "images")  # whose pictures the final artifact repeats


@flow(name="distill", flow_run_name=run_name, log_prints=True)
def distill(run: str, overrides: dict[str, Any] | None = None) -> dict[str, Handed]:
    """Everything, each stage reused where it is already made."""
    config = load_run(run, overrides)
    stages = [stage for stage in STAGES if preflight.configured(config, stage.name)]
    preflight.check(config, [stage.name for stage in stages])
    handed: dict[str, Handed] = {}
    for stage in stages:
        # Handing the values on is what draws the arrows between the stages in the UI.
        handed[stage.name] = stage(run=run, overrides=overrides, upstream=dict(handed))
    report(config, handed)
    return handed


def report(config: RunConfig, handed: dict[str, Handed]) -> Path:
    """Write the run's report and show its essence in the UI."""
    manifests = {name: manifest_of(value) for name, value in handed.items()}
    timings = {name: Timing(**value["timing"]) for name, value in handed.items()}
    descriptions = {
        name: Description.load(description_folder(Path(config.root), name, manifest.content))
        for name, manifest in manifests.items()
    }
    path = write_report(config, manifests, descriptions, timings)
    if "evaluate" in descriptions and descriptions["evaluate"].pictures:
        write_whole(path.parent / "samples.jpg", descriptions["evaluate"].pictures[0].jpeg)
    page = overview(config, manifests, descriptions).markdown(run=config.name)
    page += f"\nThe whole report, with every picture: `{path.with_suffix('.html').resolve()}`\n"
    create_markdown_artifact(page, key=f"{config.name}-report", description="the run's report")
    get_run_logger().info("report: %s", path.with_suffix(".html"))
    return path


def overview(
    config: RunConfig, manifests: dict[str, Manifest], descriptions: dict[str, Description]
) -> Description:
    """One page over all stages: the scores, the key pictures, what was kept where."""
    first, last = descriptions["captions"], list(descriptions.values())[-1]
    shown = [descriptions[name] for name in SHOWN if name in descriptions]
    facts = {name: f"{m.content[:16]}" for name, m in manifests.items()}
    return Description(
        stage="distill",
        title=f"The run {config.name}",
        rows_in=first.rows_in,
        kept=first.kept,
        rejected=first.rejected,
        reasons=first.reasons,
        facts=facts,
        tables=last.tables,
        pictures=tuple(picture for d in shown for picture in d.pictures[:1]),
        plots=tuple(plot for d in shown for plot in d.plots[:1]),
    )
