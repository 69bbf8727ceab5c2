"""The server as compose starts it, behind a password: ours come in, others do not."""

import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.infra.composed import running, settings

AUTH = "someone:planted-5a1c"
OWNER = httpx.BasicAuth(*AUTH.split(":"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's API; with a SQLite of its own."""
    chosen = settings("server", {"LIGHTGEN_AUTH": AUTH})
    del chosen["PREFECT_API_DATABASE_CONNECTION_URL"]
    with running(tmp_path_factory.mktemp("password"), chosen) as within:
        yield within["PREFECT_API_URL"]


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
