"""The server as compose starts it, behind a password: ours come in, others do not."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
AUTH = "someone:planted-5a1c"
OWNER = httpx.BasicAuth(*AUTH.split(":"))


def of_compose() -> dict[str, str]:
    """Settings of the server in compose that need no database of its own."""
    services = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]
    given = services["server"]["environment"]
    return {name: value for name, value in given.items() if "${" not in value}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Server and worker as `make distill` starts them, in a folder of their own."""
    tmp_path = tmp_path_factory.mktemp("password")
    (tmp_path / "infra").mkdir()
    shutil.copy(ROOT / "infra/services.sh", tmp_path / "infra")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    secrets = {"PREFECT_SERVER_API_AUTH_STRING": AUTH, "PREFECT_API_AUTH_STRING": AUTH}
    environment = {**os.environ, **of_compose(), **secrets, "PORT": port}

    def run(script: str) -> None:
        command = ["bash", "-c", f"set -e; source infra/services.sh; {script}"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=240)

    try:
        run("start_server; start_worker")
        yield f"http://127.0.0.1:{port}/api"
    finally:
        run("stop worker; stop server")


def test_only_who_has_the_password_comes_in(server: str) -> None:
    pool = f"{server}/work_pools/lightgen"
    assert httpx.get(f"{server}/health").json() is True
    assert httpx.get(pool).status_code == 401
    assert httpx.get(pool, auth=("someone", "else")).status_code == 401
    found = httpx.get(pool, auth=OWNER)
    assert found.json()["status"] == "READY"  # made by the worker, which came in


def test_a_browser_that_another_site_drives_does_not(server: str) -> None:
    """It would bring the password, and has no token."""
    pools = f"{server}/work_pools/filter"
    assert httpx.post(pools, json={}, auth=OWNER).status_code == 403
    token = httpx.get(f"{server}/csrf-token?client=test", auth=OWNER).json()["token"]
    headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
    assert httpx.post(pools, json={}, auth=OWNER, headers=headers).status_code == 200


def test_it_listens_on_loopback_alone(server: str) -> None:
    port = int(server.split(":")[2].split("/")[0])
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False)
    for address in addresses.stdout.split():
        with pytest.raises(OSError):  # noqa: PT011 - refused, or no way there
            socket.create_connection((address, port), timeout=2).close()
