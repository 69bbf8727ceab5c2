"""Container, compose and Kubernetes files: what can be held without a cluster."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import RunConfig
from pipeline.credentials import is_secret

INFRA = Path(__file__).parent.parent.parent / "infra"
KUBERNETES = INFRA / "kubernetes"
VARIABLE = re.compile(r"\{\{ (\w+) \}\}")
LOCK = (INFRA / "requirements/gpu.txt").read_text()


def documents() -> list[dict[str, Any]]:
    """Every object of the manifests, and the job that the template makes."""
    files = [path for path in sorted(KUBERNETES.glob("*.yaml")) if "values" not in path.name]
    found = [one for path in files for one in yaml.safe_load_all(path.read_text())]
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    return [*found, template["job_configuration"]["job_manifest"]]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for below in value.values():
            yield from pods(below)
    elif isinstance(value, list):
        for below in value:
            yield from pods(below)


def test_no_container_runs_as_root_or_may_become_it() -> None:
    found = [pod for document in documents() for pod in pods(document)]
    assert len(found) == 5  # deployments, judge, Ray's head and workers, flow runs
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 1000
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_image_ends_as_its_own_user() -> None:
    lines = (INFRA / "container/Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1001"]


def test_no_file_holds_a_secret() -> None:
    for path in [*KUBERNETES.iterdir(), INFRA / "compose.yaml", INFRA / "example.env"]:
        for name, value in re.findall(r"(\w+)\s*[:=][ \t]*([^\s#,}]*)", path.read_text()):
            if name.isupper() and is_secret(name):
                assert not value or "$" in value, f"{path}: {name}"


def test_every_variable_of_the_job_template_is_used_and_known() -> None:
    template = json.loads((KUBERNETES / "base-job-template.json").read_text())
    used = set(VARIABLE.findall(json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize("service", ["server", "store"])
def test_published_ports_are_of_loopback(service: str) -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    assert all(port.startswith("127.0.0.1:") for port in services[service]["ports"])
    assert "ports" not in services["database"]


def test_the_images_versions_are_those_of_the_lock() -> None:
    prefect = re.search(r"^prefect==(\S+)", LOCK, re.M)
    assert prefect
    worker = yaml.safe_load((KUBERNETES / "worker-values.yaml").read_text())["worker"]
    assert worker["image"]["prefectTag"].startswith(f"{prefect[1]}-")
    judges = [INFRA / "judge/compose.yaml", KUBERNETES / "judge.yaml"]
    tags = {re.findall(r"vllm-openai:(v[\d.]+)", path.read_text())[-1] for path in judges}
    assert len(tags) == 1


def test_one_pool_has_one_name_everywhere() -> None:
    deployments = yaml.safe_load((INFRA / "prefect.yaml").read_text())
    (pool,) = {deployment["work_pool"]["name"] for deployment in deployments["deployments"]}
    worker = yaml.safe_load((KUBERNETES / "worker-values.yaml").read_text())["worker"]
    assert worker["config"]["workPool"] == pool
    for path in ("compose.yaml", "services.sh", "container/Dockerfile"):
        assert pool in (INFRA / path).read_text().split("pool", 1)[1]


def test_every_named_key_of_a_run_exists() -> None:
    """What the manifests tell a user to write into a run is a place that runs have."""
    text = "".join(path.read_text() for path in KUBERNETES.glob("*.yaml"))
    schema = json.dumps(RunConfig.model_json_schema())
    places = re.findall(r"#\s+([a-z_]+(?:\.[a-z_]+)+):", text)
    assert places
    for place in places:
        assert all(f'"{step}"' in schema for step in place.split(".")), place
