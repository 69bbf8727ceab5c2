"""Services of compose as processes of a test's own: the same settings, no containers."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.flows.own_server import free_port

ROOT = Path(__file__).parent.parent.parent
SERVICES = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]
NOBODY = 65534  # Postgres refuses root


def settings(service: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service, its `${NAME}` as chosen in `infra/.env`, or by default."""

    def value(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        return chosen.get(name, (default or "").removeprefix(":-"))

    given: dict[str, str] = SERVICES[service]["environment"]
    return {name: re.sub(r"\$\{(\w+)(:[^}]*)?\}", value, text) for name, text in given.items()}


@contextmanager
def running(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Server and worker as `make distill` starts them; the environment of who talks to them."""
    for name in ("flows", "pipeline", "lightgen_model", "infra", "prefect.toml", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    port = str(free_port())
    api = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder / "home")}
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    within = {**os.environ, **environment, **api, "PORT": port, "PATH": path}

    def run(script: str) -> None:
        command = ["bash", "-c", f"set -e; source infra/services.sh; {script}"]
        subprocess.run(command, cwd=folder, env=within, check=True, timeout=240)

    try:
        run("start_server; start_worker")
        yield within
    finally:
        run("stop worker; stop server")


def postgres_binaries() -> Path | None:
    """Where this machine has Postgres, if it has."""
    linked = [Path(path) for path in [shutil.which("initdb")] if path]
    found = [*linked, *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return next((path.resolve().parent for path in found), None)


@contextmanager
def postgres(binaries: Path, user: str, password: str, database: str) -> Iterator[int]:
    """A Postgres on loopback with one user and one database; its port."""
    as_nobody: dict[str, Any] = {}
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    if os.geteuid() == 0:
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)
    (folder / "password").write_text(password)
    (folder / "password").chmod(0o644)
    data, as_user = folder / "data", ["-h", "127.0.0.1", "-p", str(port), "-U", user]
    begin = [binaries / "initdb", "-D", data, "-U", user, "--pwfile", folder / "password"]
    begin += ["--auth=scram-sha-256", "--encoding=UTF8"]
    subprocess.run(begin, cwd=folder, check=True, capture_output=True, **as_nobody)
    serve = [binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    serve += ["-c", "unix_socket_directories="]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(serve, cwd=folder, stdout=log, stderr=log, **as_nobody)
    try:
        end = time.monotonic() + 60
        while subprocess.run([binaries / "pg_isready", *as_user[:4], "-q"], check=False).returncode:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        secret = {**os.environ, "PGPASSWORD": password}
        subprocess.run([binaries / "createdb", *as_user, database], env=secret, check=True)
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # its fast way out
        server.wait(60)
        shutil.rmtree(folder)
