"""What the engine itself costs: captions to features with null backends, through real flows.

A Prefect server on loopback and one process a run, on the cores that the command is given; each row
count is made from nothing, run again with everything there, and run with 10,000 captions more. The
named alternative is the same stages in a plain loop without Prefect.

taskset -c 0,1 python -m tests.benchmarks.engine --rows 20000 200000 2000000 --out /tmp/engine

Writes <out>/results.jsonl, a line a run as it ends, and <out>/engine.svg; prints a Markdown table.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

NULL = "tests.benchmarks.null"
GROWTH = 10_000
STAGES = ("captions", "images", "verdicts", "features")


def values(root: Path, rows: int, threads: int, shard: int) -> dict[str, Any]:
    """The run: real stages, null backends."""
    source = {
        "kind": "plugin",
        "name": "null",
        "licence": "CC0-1.0",
        "path": f"{NULL}.captions:NullCaptions",
        "values": {"number": rows},
    }
    return {
        "name": "engine",
        "root": str(root),
        "engine": {"threads": threads},
        "captions": {"sources": [source], "rows_per_shard": shard},
        "images": {
            "teacher": {"kind": "plugin", "path": f"{NULL}.teacher:NullTeacher", "licence": "MIT"},
            "image_sizes": [16],
            "rows_per_shard": shard,
        },
        "verdicts": {"judge": {"kind": "plugin", "path": f"{NULL}.judge:NullJudge"}},
        "features": {
            "autoencoder": f"{NULL}.encoders:NullAutoencoder",
            "text_encoder": f"{NULL}.encoders:NullTextEncoder",
            "image_sizes": [16],
            "latents": "means",
            "batch_size": 1024,
            "workers": 2,
        },
    }


# --- one run, in a process of its own -------------------------------------------------------------


class Clock:
    """Seconds spent inside functions, by name, from any thread; calls that made something."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def watch(self, module: Any, name: str, label: str) -> None:
        inner: Callable[..., Any] = getattr(module, name)

        def timed(*args: Any, **given: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*args, **given)
            finally:
                spent = time.perf_counter() - started
                with self.lock:
                    self.seconds[label] = self.seconds.get(label, 0.0) + spent
                    self.calls[label] = self.calls.get(label, 0) + 1

        setattr(module, name, timed)


def child(run: str, plain: bool) -> None:
    """Run it and print what it took as JSON, in the last line."""
    from pipeline import captions, features, images, verdicts

    clock, modules = Clock(), dict(zip(STAGES, (captions, images, verdicts, features), strict=True))
    for stage, module in modules.items():
        for name in ("find", "plan", "whole", "make", "commit", "describe"):
            clock.watch(module, name, f"{stage}.{name}")
    stages: dict[str, Any] = {}
    started = time.perf_counter()
    if plain:
        loop(run, modules)
    else:
        import prefect.task_engine

        from flows.distillation import distill

        clock.watch(prefect.task_engine, "run_task_sync", "tasks")
        started = time.perf_counter()
        handed: Any = distill(run=run)
        stages = {stage: each["timing"] for stage, each in handed.items()}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    said = {
        "flow": round(time.perf_counter() - started, 1),
        "load": os.getloadavg()[0],
        "stages": stages,
        "inside": {name: round(seconds, 2) for name, seconds in clock.seconds.items()},
        "calls": clock.calls,
        "peak_gib": round(usage.ru_maxrss / 2**20, 3),
        "cpu": round(usage.ru_utime + usage.ru_stime, 1),
    }
    print(f"\n{json.dumps(said)}")


def loop(run: str, modules: Mapping[str, Any]) -> None:
    """The same stages without Prefect, descriptions or ledger."""
    from pipeline.config import load_run

    config, upstream = load_run(run), dict[str, Any]()
    for stage, module in modules.items():
        shards = [
            shard
            for work in module.plan(config, upstream)
            for shard in module.make(config, upstream, work, lambda rows: None)
        ]
        upstream[stage] = module.commit(config, upstream, shards)


# --- all of them ----------------------------------------------------------------------------------


@contextmanager
def server(home: Path) -> Iterator[tuple[dict[str, str], int]]:
    """A Prefect server with the settings of prefect.toml; its environment and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "LIGHTGEN_PLUGINS": "tests",
    }
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start"]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 180
        while not healthy(environment["PREFECT_API_URL"]):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"no Prefect server; see {home / 'server.log'}")
            time.sleep(0.5)
        yield environment, process.pid
    finally:
        process.terminate()
        process.wait(30)


def healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def cpu_of(pid: int) -> float:
    """Processor seconds of a process and of the children that it has waited for or still has."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            total += sum(int(fields[place]) for place in (11, 12)) / os.sysconf("SC_CLK_TCK")
    return total


def measured(
    what: str, rows: int, run: Path, environment: Mapping[str, str], pid: int, plain: bool
) -> dict[str, Any]:
    before, started = cpu_of(pid), time.perf_counter()
    log = run.with_name(f"{what.replace(' ', '-')}-{rows}.log")
    command = [sys.executable, "-m", "tests.benchmarks.engine", "--child", str(run)]
    with log.open("w") as errors:
        done = subprocess.run(
            [*command, *(["--plain"] if plain else [])],
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{what} with {rows:,} rows failed; see {log}")
    seconds = round(time.perf_counter() - started, 1)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return {"what": what, "rows": rows, "seconds": seconds, **said} | {
        "server_cpu": round(cpu_of(pid) - before, 1)
    }


def share(result: Mapping[str, Any]) -> tuple[int, float]:
    """Shards made, and seconds a hundred of them that Prefect's tasks took beside their bodies."""
    inside, calls = result["inside"], result["calls"]
    shards = sum(calls.get(f"{stage}.make", 0) for stage in STAGES)
    bodies = [f"{stage}.{name}" for stage in STAGES for name in ("make", "commit")]
    rest = inside.get("tasks", 0.0) - sum(inside.get(body, 0.0) for body in bodies)
    return shards, 100 * rest / shards if shards else 0.0


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def row_of(result: Mapping[str, Any]) -> str:
    shards, rest = share(result)
    made = sum(each["made"] for each in result["stages"].values())
    cells = [
        f"{result['rows']:,}",
        result["what"],
        f"{result['seconds']:,.1f}",
        f"{result['flow']:,.1f}",
        f"{result['cpu']:,.1f}",
        f"{result['peak_gib']:.2f}",
        f"{made:,}" if result["stages"] else "-",
        f"{shards:,}",
        f"{rest:.2f}" if shards and result["stages"] else "-",
        f"{100 * result['server_cpu'] / shards:.1f}" if shards and result["stages"] else "-",
        f"{result['gb']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


COLUMNS = (
    "captions", "run", "process, s", "flow, s", "CPU s", "peak GiB", "rows made", "shards made",
    "Prefect, s per 100 shards", "server CPU, s per 100 shards", "GB on disk",
)  # fmt: skip
HEADER = f"| {' | '.join(COLUMNS)} |\n|---:|---|" + "---:|" * (len(COLUMNS) - 2)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against rows, both logarithmic, beside a line of slope one."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    first = sorted((r for r in results if r["what"] == "from nothing"), key=lambda r: r["rows"])
    rows = [each["rows"] for each in first]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, key, mark in (("on the clock", "seconds", "o-"), ("of processor time", "cpu", "^-")):
        left.loglog(rows, [each[key] for each in first], mark, label=f"from nothing, {name}")
    last = first[-1]["cpu"]
    left.loglog(rows, [last * row / rows[-1] for row in rows], ":", c="grey", label="linear")
    again = sorted((r["rows"], r["cpu"]) for r in results if r["what"] == "again")
    left.loglog(*zip(*again, strict=True), "s-", label="again, of processor time")
    left.set(xlabel="captions", ylabel="seconds", ylim=(2, 5e4))  # room for the legend
    left.legend(fontsize="small", loc="upper left")
    right.semilogx(rows, [each["peak_gib"] for each in first], "o-")
    right.axhline(1.5, color="grey", linestyle=":")
    right.set(xlabel="captions", ylabel="peak of the flow process, GiB", ylim=(0, None))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "engine"}):
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000])
    parser.add_argument("--shard", type=int, default=8192, help="rows a shard")
    parser.add_argument("--threads", type=int, default=1, help="engine.threads")
    parser.add_argument("--plain-up-to", type=int, default=200_000, help="rows of the plain loop")
    parser.add_argument("--out", type=Path, default=Path("artifacts/engine"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.plain)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []

    def one(what: str, rows: int, root: Path, number: int, plain: bool = False) -> None:
        run = root.with_suffix(".yaml")
        run.write_text(yaml.safe_dump(values(root, number, args.threads, args.shard)))
        result = measured(what, rows, run, environment, pid, plain) | {"gb": size_of(root)}
        results.append(result)
        with (args.out / "results.jsonl").open("a") as file:
            file.write(f"{json.dumps(result)}\n")
        print(row_of(result), file=sys.stderr, flush=True)

    with server(args.out / "prefect") as (environment, pid):
        for rows in args.rows:
            root = args.out / f"rows-{rows}"
            shutil.rmtree(root, ignore_errors=True)
            if rows <= args.plain_up_to:
                one("plain loop", rows, root, rows, plain=True)
                shutil.rmtree(root)
            one("from nothing", rows, root, rows)
            one("again", rows, root, rows)
            one(f"{GROWTH:,} captions more", rows, root, rows + GROWTH)
            shutil.rmtree(root)
    plot(results, args.out / "engine.svg")
    print("\n".join([HEADER, *map(row_of, results)]))


if __name__ == "__main__":
    main()
