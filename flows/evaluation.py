"""The measurement: every checkpoint of a run draws the evaluators' prompts.

In:    a run and overrides; the manifests of the stages before, or none.
Out:   the stage's manifest and timing (`flows.stages.Handed`).
Rerun: draws and scores only for checkpoints that were not measured yet.
"""

from typing import Any

from prefect import State, flow

from flows.handed import Handed
from flows.stages import make_tables, run_name, run_stage
from pipeline import evaluation as evaluation_stage


@flow(name="evaluate", flow_run_name=run_name, log_prints=True)
def evaluate(
    run: str,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    upstream: dict[str, Handed] | None = None,
) -> State[Handed]:
    """Score the untrained, the trained and the aligned student."""
    return run_stage(evaluation_stage, make_tables, run, overrides, upstream, force)
