"""A Prefect server and a worker of a test's own, on a free port, to be killed and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent.parent
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


def free_port() -> int:
    """Of loopback; free until somebody takes it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class OwnServer:
    """Everything it starts it remembers, and ends."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "storage"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            **settings,
        }
        self.processes: dict[str, psutil.Popen] = {}

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = psutil.Popen(
                [sys.executable, "-m", "prefect", *command],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A worker that inherits SIGINT=ignore does not hear SIGTERM.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def start_server(self) -> None:
        self.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self.until(lambda: self.get("/health") is True, 180)

    def start_worker(self) -> None:
        self.start(
            "worker", "worker", "start", "--pool", "local", "--type", "process", "--name", "own"
        )
        ready = {"READY"}
        self.until(lambda: (self.get("/work_pools/local") or {}).get("status") in ready, 180)

    def module(self, *command: str) -> None:
        """A command that ends by itself; its output is in the error where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")

    def kill(self, name: str) -> None:
        """Kill -9, and wait until it is gone."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End what is still there, and all below it."""
        for process in self.processes.values():
            with suppress(psutil.NoSuchProcess):
                for each in process.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
            process.kill()
            process.wait()
        self.processes = {}

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    # --- asking it ------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer; None where there is nothing or nobody. A busy database is asked again."""
        request = urllib.request.Request(
            self.api + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code == 503:
                time.sleep(1)
                return self.ask(method, path, body)
            raise ValueError(f"{method} {path}: {error.read().decode()}") from error
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def deploy(self, entrypoint: str, name: str, parameters: Mapping[str, Any]) -> str:
        """A deployment as `prefect deploy` makes it, without its ten seconds; the id."""
        flow = self.ask("POST", "/flows/", {"name": entrypoint.rpartition(":")[2]})
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        made = self.ask(
            "POST",
            "/deployments/",
            {
                "name": name,
                "flow_id": flow["id"],
                "entrypoint": entrypoint,
                "parameters": dict(parameters),
                "work_pool_name": "local",
                "pull_steps": [step],
            },
        )
        return str(made["id"])

    def run(self, deployment: str) -> str:
        """A flow run of the deployment, for the worker to find."""
        body = {"state": {"type": "SCHEDULED"}}
        return str(self.ask("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> str:
        found = self.get(f"/flow_runs/{flow_run}")
        return str(found["state_type"]) if found else "UNKNOWN"

    def until_final(self, flow_run: str, seconds: float = 240) -> str:
        self.until(lambda: self.state(flow_run) in FINAL, seconds)
        return self.state(flow_run)

    def until(self, sign: Callable[[], bool], seconds: float) -> float:
        """Wait for a sign; how long it took. What was said is in the error."""
        began = time.monotonic()
        while not sign():
            if time.monotonic() - began > seconds:
                logs = [path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log"))]
                raise TimeoutError(f"no sign after {seconds} s:\n" + "\n".join(logs))
            time.sleep(0.1)
        return time.monotonic() - began

    def below_worker(self, words: str) -> list[psutil.Process]:
        """Processes that the worker's flow runs started, whose command has these words."""
        found = []
        for each in self.processes["worker"].children(recursive=True):
            try:
                if words in " ".join(each.cmdline()):
                    found.append(each)
            except psutil.NoSuchProcess:
                continue
        return found
