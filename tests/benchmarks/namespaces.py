"""Machines for `two_machines.py`: network namespaces, Ray nodes, a Prefect server, a store.

Each has an address of its own; their processes see one another, and so do their folders.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.flows.two_nodes import kill

REPOSITORY = Path(__file__).parent.parent.parent
FIRST, SECOND, OUTSIDE = "10.77.0.1", "10.77.0.2", "10.78.0.2"
SPACES = {FIRST: "lightgen-1", SECOND: "lightgen-2", OUTSIDE: "lightgen-3"}
RAY_PORT, CLIENT_PORT, API_PORT, STORE_PORT = 6377, 10001, 4277, 9077
NODES, CLIENT = f"{FIRST}:{RAY_PORT}", f"ray://{FIRST}:{CLIENT_PORT}"
SECRET = secrets.token_hex(20)  # of the store; looked for in all that anybody wrote
STORE = {
    "AWS_ENDPOINT_URL": f"http://{FIRST}:{STORE_PORT}",
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}
RAY = str(Path(sys.executable).parent / "ray")
NODE = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
HEAD = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]
HEAD += [f"--ray-client-server-port={CLIENT_PORT}"]


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


@contextmanager
def machines() -> Iterator[None]:
    first, second, outside = SPACES.values()
    try:
        for space in SPACES.values():
            run("ip", "netns", "add", space)
        run(*f"ip link add lg-1 netns {first} type veth peer name lg-2 netns {second}".split())
        run(*f"ip link add lg-4 netns {first} type veth peer name lg-3 netns {outside}".split())
        run(*f"ip -n {first} address add 10.78.0.1/24 dev lg-4".split())
        run(*f"ip -n {first} link set lg-4 up".split())
        for number, (address, space) in enumerate(SPACES.items(), 1):
            run(*f"ip -n {space} address add {address}/24 dev lg-{number}".split())
            run(*f"ip -n {space} link set lg-{number} up".split())
            run(*f"ip -n {space} link set lo up".split())
        run(*f"ip -n {outside} route add 10.77.0.0/24 via 10.78.0.1".split())
        yield
    finally:
        for address, space in SPACES.items():
            kill(pids(address))
            run("ip", "netns", "delete", space, check=False)


def pids(address: str) -> list[int]:
    return [int(pid) for pid in run("ip", "netns", "pids", SPACES[address]).split()]


def within(address: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", SPACES[address], *words]


TOKEN = secrets.token_hex(32)


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PREFECT_API_URL": f"http://{FIRST}:{API_PORT}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_worker_niceness": "0",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_failure_threshold": "5",
    }


@contextmanager
def server(root: Path) -> Iterator[None]:
    home = {"PREFECT_HOME": str(root / "prefect"), "PREFECT_SERVER_DATABASE_TIMEOUT": "60"}
    words = ["-m", "prefect", "server", "start", "--host", FIRST, "--port", str(API_PORT)]
    health = f"http://{FIRST}:{API_PORT}/api/health"
    with serving(root / "server.log", words, f"httpx.get('{health}').raise_for_status()", **home):
        yield


@contextmanager
def store(root: Path) -> Iterator[None]:
    words = ["-m", "tests.pipeline.object_store", FIRST, str(STORE_PORT)]
    put = f"httpx.put('http://{FIRST}:{STORE_PORT}/runs').raise_for_status()"
    with serving(root / "store.log", words, put):
        yield


@contextmanager
def serving(log: Path, words: Sequence[str], sign: str, **extra: str) -> Iterator[None]:
    """A Python program on the first machine, from when `sign` can be done there."""
    python = within(FIRST, sys.executable)
    with log.open("w") as file:
        child = subprocess.Popen(
            [*python, *words],
            env={**environment(), **extra},
            cwd=REPOSITORY,
            stdout=file,
            stderr=file,
        )
        try:
            for _ in range(180):
                asked = subprocess.run(
                    [*python, "-c", f"import httpx; {sign}"], capture_output=True
                )
                if not asked.returncode:
                    break
                time.sleep(1)
            yield
        finally:
            child.terminate()
            child.wait()


class Node:
    """A Ray node; `hidden` is a folder that this machine does not see."""

    def __init__(self, address: str, hidden: Path | None, extra: Mapping[str, str]) -> None:
        words = [RAY, "start", f"--node-ip-address={address}", *NODE]
        words += HEAD if address == FIRST else [f"--address={NODES}"]
        if hidden:
            shell = f'mount -t tmpfs none {hidden} && exec "$@"'
            words = ["sh", "-c", shell, "sh", *words]
        self.address, self.words, self.extra = address, within(address, *words), extra
        self.before = set(pids(address))

    def start(self) -> None:
        done = subprocess.run(
            self.words,
            env={**environment(), **self.extra},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"ray start on {self.address}:\n{done.stdout}{done.stderr}")

    def again(self) -> None:
        """As a machine that reboots."""
        time.sleep(10)
        self.start()

    def end(self) -> None:
        kill([pid for pid in pids(self.address) if pid not in self.before])


@contextmanager
def node(address: str, hidden: Path | None = None, **extra: str) -> Iterator[Node]:
    made = Node(address, hidden, extra)
    made.start()
    try:
        yield made
    finally:
        made.end()
