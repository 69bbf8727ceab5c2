"""The plan of a run, before it is paid for: rows, bytes, hours, money, licences, what is missing.

In:    a run and overrides.
Out:   the plan in the terminal and as an artifact in the UI; nothing is made and no GPU is needed.
Rerun: looks again at what is there.
"""

from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from flows.artifacts import show_page, show_table
from flows.stages import run_name
from pipeline import plan_page
from pipeline.config import RunConfig, load_run
from pipeline.credentials import mask_logs
from pipeline.plan import Plan, plan_of


@flow(name="plan", flow_run_name=run_name, log_prints=True)
def plan(run: str, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the run is thought to take, stage by stage; what is there already costs nothing."""
    return tell(load_run(run, overrides)).to_json()


def tell(config: RunConfig) -> Plan:
    """Show the plan of a run in the log and in the UI."""
    mask_logs()
    made = plan_of(config)
    get_run_logger().info("%s", plan_page.plain(made))
    key = f"{config.name}-plan"
    show_page(key, plan_page.markdown(made), "the run's plan")
    grid = plan_page.stages_grid(made)
    rows = [dict(zip(grid.header, row, strict=True)) for row in grid.rows]
    show_table(f"{key}-stages", rows, "what each stage is to take")
    return made
