"""A feedback round: the evaluation's weak tasks get more captions, and the student goes on.

In:    a run and the overrides under which it was made and evaluated; how many captions to add, and
       how strongly scores decide (`pipeline.feedback`); `changes`, the next round's further values.
Out:   what `distill` hands on; the shares as a table artifact: of the new captions and, with
       `balance`, of all that the student is shown.
Rerun: the same evaluation asks for the same captions: everything is found again.
"""

from typing import Annotated, Any

from prefect import flow
from prefect.logging import get_run_logger
from pydantic import Field

from flows.artifacts import show_table
from flows.distillation import distill
from flows.handed import Handed
from flows.stages import run_name
from pipeline import evaluation
from pipeline.config import load_run
from pipeline.feedback import next_round, task_shares
from pipeline.upstream import found_of


@flow(name="feedback", flow_run_name=run_name, log_prints=True)
def feedback(
    run: str,
    num_captions: Annotated[int, Field(ge=1)] = 3000,
    strength: Annotated[float, Field(ge=0)] = 1.0,
    floor: Annotated[float, Field(ge=0, le=1)] = 0.05,
    balance: bool = True,
    overrides: dict[str, Any] | None = None,
    changes: dict[str, Any] | None = None,
) -> dict[str, Handed]:
    """Teach what the newest checkpoint of the run gets wrong."""
    config = load_run(run, overrides)
    upstream = found_of(config, evaluation.STAGE)
    scores = list(evaluation.scores(config, upstream[evaluation.STAGE]).values())[-1]
    shares = task_shares(scores, strength=strength, floor=floor)
    rows = [{"task": task, "score": scores[task], "share": shares[task]} for task in shares]
    show_table(f"{config.name}-feedback", rows, "shares of the captions to add")
    given = next_round(config, upstream, shares, num_captions, balance=balance)
    get_run_logger().info("next round: %s", given)
    handed: dict[str, Handed] = distill(
        run=run, overrides={**(overrides or {}), **given, **(changes or {})}
    )
    return handed
