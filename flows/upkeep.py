"""What is done to a run's artifacts beside making them: verify, retention, lineage, compare.

In:    a run; what to look at.
Out:   an artifact each. `verify` fails where something is damaged, so that an automation sees it.
Rerun: looks again.
"""

from dataclasses import asdict
from typing import Annotated, Any

from prefect import State, flow
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from flows.artifacts import Progress, picture, show_page
from flows.stages import run_name
from pipeline import comparison, verification
from pipeline import lineage as lineages
from pipeline import retention as retentions
from pipeline.config import load_run
from pipeline.origins import Lineage, trace
from pipeline.roots import root_of

MIB = 2**20


@flow(name="verify", flow_run_name=run_name, log_prints=True)
def verify(run: str, quarantine: bool = True) -> State[dict[str, Any]]:
    """Read every file that the records name against its checksum; move damaged ones aside."""
    config = load_run(run)
    progress: list[Progress] = []

    def tell(done: int, total: int, rows: int) -> None:
        if not progress:
            progress.append(Progress(f"{config.name}-verify", total // MIB, "MiB", first=0))
        progress[0](done // MIB, f"{rows:,} rows")

    verified = verification.verify(root_of(config.root), quarantine=quarantine, tell=tell)
    show_page(f"{config.name}-verify", verification.markdown(verified), "verification")
    said = verification.sentence(verified)
    if not verified.damages:
        return Completed(message=said, data=asdict(verified))
    for damage in verified.damages:
        get_run_logger().error("%s %s; %s", damage.place, damage.what, damage.then)
    return Failed(message=f"{said}: prefect deployment run distill/{config.name} makes them again")


@flow(name="retention", flow_run_name=run_name, log_prints=True)
def retention(
    run: str,
    keep: Annotated[int | None, Field(ge=1)] = None,
    remove: bool = False,
    min_age_hours: Annotated[float, Field(ge=0)] = retentions.MIN_AGE_HOURS,
) -> dict[str, Any]:
    """List what no kept record names; with `remove`, remove it. `keep`: newest records a stage."""
    config = load_run(run)
    plan = retentions.retain(
        root_of(config.root), keep=keep, config=config, remove=remove, min_age_hours=min_age_hours
    )
    get_run_logger().info(retentions.sentence(plan))
    show_page(f"{config.name}-retention", retentions.markdown(plan), "what may go")
    return asdict(plan)


@flow(name="lineage", flow_run_name=run_name, log_prints=True)
def lineage(run: str, target: str = "") -> dict[str, Any]:
    """Everything that a checkpoint, picture, caption, pair or score came from, with a graph."""
    config = load_run(run)
    found = trace(root_of(config.root), target, config.name)
    show_lineage(config.name, found)
    return lineages.to_json(found)


@flow(name="compare", flow_run_name=run_name, log_prints=True)
def compare(run: str, first: str | None = None, second: str | None = None) -> dict[str, Any]:
    """Two records (`root` or `root:entry`), or the two newest: what differs, to what effect."""
    config = load_run(run)
    if first and second:
        sides = comparison.side_of(first), comparison.side_of(second)
    elif first or second:
        sides = comparison.side_of(first or str(second)), comparison.side_of(config.root)
    else:
        sides = comparison.newest_two(root_of(config.root), config.name)
    found = comparison.compare(*sides)
    get_run_logger().info(found.cause)
    text, bars = comparison.markdown(found), comparison.bars(found)
    if bars:
        text += f"\n{picture('scores', bars)}\n"
    show_page(f"{config.name}-compare", text, found.cause)
    return {**asdict(found), "cause": found.cause}


def show_lineage(run: str, found: Lineage) -> None:
    title, _, rest = lineages.markdown(found).partition("\n\n")
    page = f"{title}\n\n{picture('lineage', lineages.graph(found))}\n\n{rest}"
    show_page(f"{run}-lineage", page, f"where {found.target} comes from")
