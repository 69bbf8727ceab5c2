"""Two machines in two network namespaces: a Ray cluster over them makes what one machine makes.

`python -m tests.benchmarks.two_machines` (as root, on Linux, with the extra `ray`) prints a table.

Each namespace has an address of its own, its own Ray node and its own processes; the folder is
shared, as by NFS. The flow and the Prefect server are on the first. Told for each way: seconds, and
whether tables and weights are those that one machine makes without Ray, byte for byte.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.flows.conftest import debug_values
from tests.flows.two_nodes import files, kill, writes

REPOSITORY = Path(__file__).parent.parent.parent
FIRST, SECOND = "10.77.0.1", "10.77.0.2"
SPACES = {FIRST: "lightgen-1", SECOND: "lightgen-2"}
RAY_PORT, API_PORT = 6377, 4277
RAY = str(Path(sys.executable).parent / "ray")
NODE = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
HEAD = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/tmp/two-machines"))
    parser.add_argument("--captions", type=int, default=900)
    args = parser.parse_args()
    shutil.rmtree(args.root, ignore_errors=True)
    args.root.mkdir(parents=True)
    with machines(), server(args.root):
        rows = list(ways(args.root, args.captions))
    print("| way | seconds | to one machine | tables | weights |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def ways(root: Path, captions: int) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    alone = root / "alone"
    base = distil(alone, captions)
    expected = files(alone / "artifacts"), weights(alone)
    assert len(expected[0]) > 20
    assert len(expected[1]) == 1
    yield ("one machine, torchrun", f"{base:.0f}", "1.0x", f"{len(expected[0])} files", "1 file")
    with node(FIRST):
        with node(SECOND):
            seconds = distil(root / "two", captions, ray=True)
            yield ("two nodes", *told(root / "two", seconds, base, expected))
            striker = threading.Thread(target=strike)
            striker.start()
            seconds = distil(root / "killed", captions, ray=True, train=False)
            striker.join()
            row = told(root / "killed", seconds, base, (expected[0], []))
            yield ("second node killed, no training", *row[:-1], "")
        (root / "blind").mkdir()
        with node(SECOND, hidden=root / "blind"):
            said = refusal(root / "blind", captions)
            yield ("second node without the root", "", "", said, "")


def told(folder: Path, seconds: float, base: float, expected: Any) -> tuple[str, ...]:
    same = files(folder / "artifacts") == expected[0], weights(folder) == expected[1]
    words = ["the same" if each else "OTHERS" for each in same]
    return (f"{seconds:.0f}", f"{seconds / base:.1f}x", *words)


def weights(folder: Path) -> list[bytes]:
    paths = sorted((folder / "artifacts/checkpoints").glob("student-*/final/model.safetensors"))
    return [path.read_bytes() for path in paths]


def strike() -> None:
    """Kill everything on the second machine as soon as it has begun to write a shard."""
    while not writes(pids(SECOND)):
        time.sleep(0.005)
    kill(pids(SECOND))


# --- machines -----------------------------------------------------------------------------------


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


@contextmanager
def machines() -> Iterator[None]:
    first, second = SPACES.values()
    try:
        for space in SPACES.values():
            run("ip", "netns", "add", space)
        run(*f"ip link add lg-1 netns {first} type veth peer name lg-2 netns {second}".split())
        for number, (address, space) in enumerate(SPACES.items(), 1):
            run(*f"ip -n {space} address add {address}/24 dev lg-{number}".split())
            run(*f"ip -n {space} link set lg-{number} up".split())
            run(*f"ip -n {space} link set lo up".split())
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
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }


@contextmanager
def server(root: Path) -> Iterator[None]:
    home = {"PREFECT_HOME": str(root / "prefect"), "PREFECT_SERVER_DATABASE_TIMEOUT": "60"}
    words = within(FIRST, sys.executable, "-m", "prefect", "server", "start")
    with (root / "server.log").open("w") as log:
        child = subprocess.Popen(
            [*words, "--host", FIRST, "--port", str(API_PORT)],
            env={**environment(), **home},
            stdout=log,
            stderr=log,
        )
        probe = (
            f"import httpx; httpx.get('http://{FIRST}:{API_PORT}/api/health').raise_for_status()"
        )
        for _ in range(120):
            asked = subprocess.run(within(FIRST, sys.executable, "-c", probe), capture_output=True)
            if not asked.returncode:
                break
            time.sleep(1)
        try:
            yield
        finally:
            child.terminate()
            child.wait()


@contextmanager
def node(address: str, hidden: Path | None = None) -> Iterator[None]:
    """A Ray node; `hidden` is a folder that this machine does not see."""
    words = [RAY, "start", f"--node-ip-address={address}", *NODE]
    words += HEAD if address == FIRST else [f"--address={FIRST}:{RAY_PORT}"]
    if hidden:
        shell = f'mount -t tmpfs none {hidden} && exec "$@"'
        words = ["sh", "-c", shell, "sh", *words]
    before = set(pids(address))
    done = subprocess.run(
        within(address, *words), env=environment(), cwd=REPOSITORY, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"ray start on {address}:\n{done.stdout}{done.stderr}")
    try:
        yield
    finally:
        kill([pid for pid in pids(address) if pid not in before])


# --- the run ------------------------------------------------------------------------------------


def written(folder: Path, captions: int, ray: bool, train: bool = True) -> Path:
    """Captions to student; with `ray` all of it but the captions on the cluster."""
    values = debug_values(folder / "artifacts")
    source = {"kind": "shapes", "num_captions": captions}
    values["captions"] = {"sources": [source], "rows_per_shard": max(captions // 9, 1)}
    values["student"] |= {"num_processes": 2, "launcher": "ray" if ray else "torchrun"}
    for stage in ("preferences", "dpo", "evaluation", *(() if train else ("student",))):
        del values[stage]
    cluster = {"address": f"{FIRST}:{RAY_PORT}"}
    engine = {"task_runner": "ray", "ray": cluster} if ray else {}
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**values, "engine": engine}))
    return path


def driven(path: Path) -> subprocess.CompletedProcess[str]:
    code = f"from flows.distillation import distill; distill(run={str(path)!r})"
    words: Sequence[str] = within(FIRST, sys.executable, "-c", code)
    return subprocess.run(
        words, env=environment(), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def distil(folder: Path, captions: int, ray: bool = False, train: bool = True) -> float:
    started = time.monotonic()
    done = driven(written(folder, captions, ray, train))
    (folder / "flow.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise SystemExit(f"{folder / 'flow.log'}:\n{(done.stdout + done.stderr)[-4000:]}")
    return time.monotonic() - started


def refusal(folder: Path, captions: int) -> str:
    """What the run says of a node that does not see its root."""
    done = driven(written(folder, captions, ray=True))
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "does not see" in line]
    assert done.returncode
    assert lines, done.stderr[-4000:]
    return lines[-1].strip()


if __name__ == "__main__":
    main()
