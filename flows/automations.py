"""What the Prefect server does by itself: a flow run that fell silent is shown as Crashed.

In:    the flows that `infra/prefect.yaml` deploys.
Out:   one automation on the server. A flow run sends a heartbeat every `flows.heartbeat_frequency`
       seconds (prefect.toml); a run that was killed with its worker sends none.
Rerun: there is one automation, however often it is registered; it gets the values of today.

    python -m flows.automations

A worker that lives sees its own dead flow runs in seconds; this is for a worker that died, too.
"""

import argparse
from datetime import timedelta
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import get_current_settings

NAME = "lightgen: a silent run has crashed"
BEATS = 5  # missed in a row, so that a server may restart, or a beat get lost, unharmed
HEARTBEAT = "prefect.flow-run.heartbeat"


def flow_names(deployments: Path) -> list[str]:
    """The flows of the deployments; of these alone the heartbeats are known to be so frequent."""
    entries = yaml.safe_load(deployments.read_text(encoding="utf-8"))["deployments"]
    return sorted({entry["entrypoint"].rpartition(":")[2] for entry in entries})


def silent_run_has_crashed(flows: list[str], seconds: int) -> AutomationCore:
    return AutomationCore(
        name=NAME,
        description=f"No heartbeat for {seconds} s: its process or its machine is gone.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after={HEARTBEAT},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.role": "flow",
                "prefect.resource.name": flows,
            },
            for_each={"prefect.resource.id"},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No sign of life for {seconds} s: run the same command again, it goes on.",
            )
        ],
    )


def register(deployments: Path) -> None:
    """Create the automation, or give the one that is there the values of today."""
    beat = get_current_settings().flows.heartbeat_frequency
    if beat is None:
        raise ValueError("flows.heartbeat_frequency is off: a dead worker's run would run for ever")
    wanted = silent_run_has_crashed(flow_names(deployments), BEATS * beat)
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(NAME)
        if not there:
            client.create_automation(wanted)
        for each in there[:1]:
            client.update_automation(each.id, wanted)
        for each in there[1:]:  # of two that were registered at the same time
            client.delete_automation(each.id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let the server see runs that fell silent.")
    parser.add_argument("--deployments", type=Path, default=Path("infra/prefect.yaml"))
    register(parser.parse_args().deployments)
