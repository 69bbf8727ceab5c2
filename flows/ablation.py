"""Ablations: the student of a run under other values, a few points at a time, beside each other.

In:    a run and its studies (`infra/ablations/<run>.yaml`): one by name, or all.
Out:   for each study a table with intervals and a plot, in the UI and under <root>/report/ablations
       as JSON, Markdown and SVG; the same as JSON is handed on.
Rerun: every stage of a point is found where it was made: a killed study goes on where it was, a new
       point makes what it alone needs. What points share is asked for once.

The student is measured as it was trained: alignment is no part of a study.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.logging import get_run_logger

from flows.artifacts import picture, show_page
from flows.dataset import captions, features, images, verdicts
from flows.evaluation import evaluate
from flows.handed import Handed, hand_on, manifest_of
from flows.stages import run_name
from flows.training import student
from pipeline import ablation_results, ablations, evaluation, preflight
from pipeline import student as student_stage
from pipeline.ablation_files import write_study
from pipeline.ablation_plots import study_svg
from pipeline.ablation_results import Found, Outcome
from pipeline.ablations import Study, Trial, load_ablations, trials
from pipeline.config import RunConfig, load_run
from pipeline.feedback import next_round, task_shares
from pipeline.roots import root_of
from pipeline.tables import Manifest

LEARNING = (captions, images, verdicts, features, student)
Shared = dict[str, Handed]  # stage and its values to what it handed on


@flow(name="ablate", flow_run_name=run_name, log_prints=True)
def ablate(
    run: str,
    study: str | None = None,
    overrides: dict[str, Any] | None = None,
    studies: str | None = None,
    seeds: list[int] | None = None,
) -> dict[str, Any]:
    """Train, measure and compare the points of one study of a run, or of all its studies.

    `studies`: another file than `infra/ablations/<run>.yaml`; `seeds`: others than it names.
    """
    given = load_ablations(run, studies)
    chosen = given.named(study)
    asked = {name: trials(given, each, overrides or {}, seeds) for name, each in chosen.items()}
    for each in asked.values():
        ablations.check(run, each)
    shared: Shared = {}
    return {name: examine(run, name, chosen[name], asked[name], shared) for name in chosen}


def examine(
    run: str, name: str, study: Study, asked: list[Trial], shared: Shared
) -> dict[str, Any]:
    """One study, point by point; what is known is written down after each."""
    outcomes: list[Outcome] = []
    made: dict[tuple[str, int], tuple[RunConfig, dict[str, Manifest]]] = {}
    for number, trial in enumerate(asked, 1):
        overrides = trial.overrides
        if trial.feedback:
            overrides = {**overrides, **_round(trial, *made[trial.feedback.after, trial.seed])}
        config, manifests = walked(run, overrides, shared)
        made[trial.label, trial.seed] = config, manifests
        outcomes.append(ablation_results.outcome(config, trial, manifests))
        found = ablation_results.collect(name, study, outcomes)
        write_study(folder_of(config), found)
        row = next(row for row in found.rows if row.label == trial.label)
        get_run_logger().info(
            "%s: point %d of %d, %s with seed %d: %s",
            *(name, number, len(asked), trial.label, trial.seed),
            f"{row.seeds[trial.seed]:.3f}; all its seeds {row.shares['mean']}",
        )
    show(config, found)
    return ablation_results.to_json(found)


def walked(
    run: str, overrides: Mapping[str, Any], shared: Shared
) -> tuple[RunConfig, dict[str, Manifest]]:
    """The stages up to the student, each asked for once, and the evaluation of it alone."""
    config = load_run(run, overrides)
    handed: dict[str, Handed] = {}
    for stage in LEARNING:
        key = _key(config, stage.name)
        if key not in shared:
            asked: Any = stage(run=run, overrides=dict(overrides), upstream=dict(handed))
            shared[key] = cast(Handed, asked)
        handed[stage.name] = shared[key]
    manifests = {name: manifest_of(config, each) for name, each in handed.items()}
    trained = manifests[student_stage.STAGE]
    # Without its start, which is the same noise for every point.
    only = {student_stage.CHECKPOINT: trained.checkpoints[student_stage.CHECKPOINT]}
    measured = {**handed, student_stage.STAGE: hand_on(config, replace(trained, checkpoints=only))}
    scored: Any = evaluate(run=run, overrides=dict(overrides), upstream=measured)
    return config, {**manifests, evaluation.STAGE: manifest_of(config, scored)}


def _key(config: RunConfig, stage: str) -> str:
    """The values that a stage and those above it read; features also know the student's latents."""
    sections = {*preflight.sections_up_to(stage), "root"}
    model = config.student.model.model_dump_json() if config.student else ""
    return f"{stage} {config.model_dump_json(include=sections)} {model}"


def _round(trial: Trial, config: RunConfig, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Captions by what the student got wrong, and that student to go on from."""
    assert trial.feedback is not None
    scores = evaluation.scores(config, manifests[evaluation.STAGE])[student_stage.CHECKPOINT]
    asked = trial.feedback
    shares = task_shares(scores, strength=asked.strength, floor=asked.floor)
    get_run_logger().info("%s: shares of the new captions %s", trial.label, shares)
    return next_round(config, manifests, shares, asked.num_captions, balance=asked.balance)


# --- what a person sees -------------------------------------------------------------------------


def show(config: RunConfig, found: Found) -> None:
    show_page(
        f"{config.name}-ablation-{found.name}",
        ablation_results.markdown(found, picture(found.study.title, study_svg(found))),
        found.study.question or found.study.title,
    )
    get_run_logger().info("%s: %s", found.name, folder_of(config) / f"{found.name}.md")


def folder_of(config: RunConfig) -> Path:
    return root_of(config.root) / "report" / "ablations"
