"""One automation on a real server, however often it is registered; it fits the deployments."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.automations import BEATS, NAME, flow_names, register
from flows.distillation import STAGES

DEPLOYMENTS = Path(__file__).parent.parent.parent / "infra" / "prefect.yaml"


def test_registered_twice_there_is_one_with_the_newest_values(server: dict[str, str]) -> None:
    for seconds in (30, 60):
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: seconds}):
            register(DEPLOYMENTS)
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(NAME)
    assert found.enabled
    assert found.trigger.within.total_seconds() == BEATS * 60  # type: ignore[union-attr]


def test_without_heartbeats_it_is_refused(server: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="heartbeat_frequency is off"):
        register(DEPLOYMENTS)  # the tests' server runs without


def test_it_watches_every_flow_that_is_deployed() -> None:
    assert set(STAGES) | {"distill", "plan", "verify"} <= set(flow_names(DEPLOYMENTS))
