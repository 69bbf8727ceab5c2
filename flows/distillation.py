"""The whole way: captions, images, verdicts, features, student, preferences, dpo, evaluate.

In:    a run and overrides by dotted path.
Out:   first the run's plan, then the manifests of all stages; report.json and report.html in the
       run's root, with what was spent beside what was planned.
Rerun: every stage that is there already is reused; see `flows.stages`.
"""

import json
from typing import Any, cast

from prefect import flow
from prefect.logging import get_run_logger
from prefect.utilities.engine import link_state_to_flow_run_result

from flows.artifacts import show_page
from flows.dataset import captions, features, images, verdicts
from flows.evaluation import evaluate
from flows.handed import Handed, manifest_of
from flows.plan import tell
from flows.stages import run_name
from flows.training import dpo, preferences, student
from flows.upkeep import show_lineage
from pipeline import cost_page, evaluation, preflight
from pipeline.config import RunConfig, load_run
from pipeline.costs import costs_of
from pipeline.description import Description, Timing, description_folder
from pipeline.origins import trace
from pipeline.plan import Plan
from pipeline.report import build_report, markdown, write_report
from pipeline.roots import root_of
from pipeline.upstream import steps

STAGES = {
    flow.name: flow
    for flow in (captions, images, verdicts, features, student, preferences, dpo, evaluate)
}


@flow(name="distill", flow_run_name=run_name, log_prints=True)
def distill(run: str, overrides: dict[str, Any] | None = None) -> dict[str, Handed]:
    """Everything, each stage reused where it is already made."""
    config = load_run(run, overrides)
    planned = tell(config)
    chosen = [step for step in steps(config) if preflight.configured(config, step.stage.STAGE)]
    preflight.check(config, [step.stage.STAGE for step in chosen])
    handed: dict[str, Handed] = {}
    for name, stage, round in chosen:
        state = STAGES[stage.STAGE](
            run=run,
            overrides=overrides,
            upstream=_linked_to_last(handed),
            **({"round": round} if round else {}),
            return_state=True,
        )
        handed[name] = cast(Handed, state.result())
        link_state_to_flow_run_result(state, handed[name])
    report(config, handed, planned)
    return handed


def _linked_to_last(handed: dict[str, Handed]) -> dict[str, Handed]:
    """What a stage is given: Prefect draws an arrow for each object it saw come out of a flow.

    One arrow a stage reads as a staircase, all of them as a knot; so the others are copies.
    """
    *others, last = handed or [""]
    copies = {name: cast(Handed, json.loads(json.dumps(handed[name]))) for name in others}
    return copies | {last: handed[last]} if handed else {}


def report(config: RunConfig, handed: dict[str, Handed], planned: Plan) -> None:
    """Write the run's report and show its essence in the UI, with the cost ledger."""
    manifests = {name: manifest_of(config, value) for name, value in handed.items()}
    timings = {name: Timing(**value["timing"]) for name, value in handed.items()}
    descriptions = {
        name: Description.load(
            description_folder(root_of(config.root), manifest.stage, manifest.content)
        )
        for name, manifest in manifests.items()
    }
    measured = manifests.get("evaluate")
    scores = evaluation.scores(config, measured) if measured else None
    evidence = evaluation.evidence(config, measured) if measured else None
    costs = costs_of(config, planned, manifests, descriptions, timings)
    page = write_report(
        config, manifests, descriptions, timings, scores, evidence=evidence, costs=costs
    )
    told = build_report(
        config.name, manifests, descriptions, timings, scores, evidence, note=config.note
    )
    text = f"{markdown(told, descriptions)}\nEverything on one page: `{page.resolve()}`\n"
    show_page(f"{config.name}-report", text, "the run's report")
    if any(timing.made for timing in timings.values()):
        show_lineage(config.name, trace(root_of(config.root), run=config.name))
    show_page(f"{config.name}-ledger", cost_page.markdown(costs), "what it cost")
    get_run_logger().info("%s", cost_page.plain(costs))
    get_run_logger().info("report: %s", page)
