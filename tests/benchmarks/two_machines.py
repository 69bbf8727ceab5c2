"""Two machines in two network namespaces: a Ray cluster over them makes what one machine makes.

`python -m tests.benchmarks.two_machines` (as root, on Linux, with the extras `ray` and `s3`, and
moto) prints a table.

Each namespace has an address of its own, its own Ray node and its own processes; the folder is
shared, as by NFS, but where a bucket is the root. The flow and the Prefect server are on the first;
where Ray's client is told of, the flow is on a third that is no node. Told for each way: seconds,
and whether tables and weights are those that one machine makes without Ray, byte for byte.
"""

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.namespaces import (
    CLIENT,
    FIRST,
    NODES,
    OUTSIDE,
    REPOSITORY,
    SECOND,
    SECRET,
    STORE,
    environment,
    machines,
    node,
    pids,
    server,
    store,
    within,
)
from tests.flows.conftest import debug_values
from tests.flows.two_nodes import files, kill, writes

CAPTIONS = 450
Row = tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/tmp/two-machines"))
    parser.add_argument("--captions", type=int, default=CAPTIONS)
    parser.add_argument("--ways", choices=sorted(WAYS), nargs="*", default=[*WAYS])
    args = parser.parse_args()
    shutil.rmtree(args.root, ignore_errors=True)
    args.root.mkdir(parents=True)
    with machines(), server(args.root):
        print("| way | seconds | to one machine | tables | weights |\n|---|---|---|---|---|")
        for row in ways(args.root, args.captions, args.ways):
            print("| " + " | ".join(row) + " |", flush=True)


def ways(root: Path, captions: int, chosen: Sequence[str]) -> Iterator[Row]:
    """The rows of the table."""
    alone = Run(root / "alone", captions, address="")
    base = alone.distil()
    expected = files(alone.root), weights(alone.root)
    assert len(expected[0]) > 20
    assert len(expected[1]) == 2
    counts = [f"{len(each)} files" for each in expected]
    yield ("one machine, torchrun", f"{base:.0f}", "1.0x", *counts)
    for name in chosen:
        yield from WAYS[name](root, captions, base, expected)


def on_a_shared_folder(root: Path, captions: int, base: float, expected: Any) -> Iterator[Row]:
    with node(FIRST):
        with node(SECOND):
            two = Run(root / "two", captions)
            yield ("two nodes", *told(two, two.distil(), base, expected))
            killed = Run(root / "killed", captions, train=False)
            with struck(lambda: bool(writes(pids(SECOND)))):
                seconds = killed.distil()
            data = files(root / "alone" / "artifacts", of_students=False)
            row = told(killed, seconds, base, (data, []))
            yield ("second node killed while it writes a shard", *row[:-1], "")
        with node(SECOND) as second:
            trained = Run(root / "trained", captions)
            untrained = shutil.ignore_patterns("student-*", "dpo-*")
            shutil.copytree(two.root, trained.root, ignore=untrained)
            with struck(lambda: bool(list(trained.root.rglob("state-*.pt"))), second.again):
                seconds = trained.distil()
            row = told(trained, seconds, base, expected)
            yield ("second node killed in a training, and back", *row)
        blind = Run(root / "blind", captions)
        blind.folder.mkdir()
        with node(SECOND, hidden=blind.folder):
            yield ("second node without the root", "", "", blind.refusal("does not see"), "")


def by_the_client(root: Path, captions: int, base: float, expected: Any) -> Iterator[Row]:
    """The flow is on a machine that is no node."""
    with node(FIRST), node(SECOND):
        no_node = Run(root / "no-node", captions, driven_from=OUTSIDE, apart=True)
        yield ("a flow on no node", "", "", no_node.refusal("is none of that cluster"), "")
        outside = Run(root / "outside", captions, address=CLIENT, driven_from=OUTSIDE, apart=True)
        yield ("the same by Ray's client", *told(outside, outside.distil(), base, expected))


def in_a_bucket(root: Path, captions: int, base: float, expected: Any) -> Iterator[Row]:
    """Each machine has a disk of its own, and has in common with the other the store alone."""
    with store(root):
        bucket = Run(root / "bucket", captions, bucket="s3://runs/two")
        with node(FIRST, **STORE, LIGHTGEN_CACHE=f"{root}/near-1"):
            with node(SECOND, **STORE, LIGHTGEN_CACHE=f"{root}/near-2"):
                seconds = bucket.distil()
                bucket.bring()
                yield ("a bucket", *told(bucket, seconds, base, expected))
                told_by = [str(path) for path in said(root) if SECRET in path.read_text("latin1")]
                yield ("files in which its key is found", "", "", str(len(told_by)), "")
            with node(SECOND):
                poor = Run(root / "poor", captions, bucket="s3://runs/poor")
                yield ("second node without its key", "", "", poor.refusal("cannot read the"), "")


WAYS = {"folder": on_a_shared_folder, "client": by_the_client, "bucket": in_a_bucket}


def said(root: Path) -> Iterator[Path]:
    """All that was written down: by Ray, the server, the flows, the runs."""
    for folder in (root, Path("/tmp/ray/session_latest").resolve()):
        yield from (path for path in folder.rglob("*") if path.is_file())


def told(run: "Run", seconds: float, base: float, expected: Any) -> tuple[str, ...]:
    same = files(run.root) == expected[0], weights(run.root) == expected[1]
    words = ["the same" if each else "OTHERS" for each in same]
    return (f"{seconds:.0f}", f"{seconds / base:.1f}x", *words)


def weights(root: Path) -> list[bytes]:
    paths = sorted((root / "checkpoints").glob("*/final/model.safetensors"))
    return [path.read_bytes() for path in paths]


@contextmanager
def struck(sign: Callable[[], bool], then: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """Everything on the second machine is killed at a sign, while the body runs."""

    def strike() -> None:
        while not sign():
            time.sleep(0.005)
        kill(pids(SECOND))
        then()

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    yield
    striker.join(1)
    assert not striker.is_alive(), "it was over before anything was killed"


# --- the run ------------------------------------------------------------------------------------


@dataclass
class Run:
    """Captions to DPO; with an address all of it but the captions on the cluster."""

    folder: Path
    captions: int
    address: str = NODES
    train: bool = True
    bucket: str = ""
    driven_from: str = FIRST
    apart: bool = False  # from the processes of other machines, which namespaces alone show

    @property
    def root(self) -> Path:
        """Here, also of a bucket once `bring` was called."""
        return self.folder / "artifacts"

    def written(self) -> Path:
        values = debug_values(self.root) | ({"root": self.bucket} if self.bucket else {})
        source = {"kind": "shapes", "num_captions": self.captions}
        shard = max(self.captions // 9, 1)
        values["captions"] = {"sources": [source], "rows_per_shard": shard}
        launcher = "ray" if self.address else "torchrun"
        for stage in ("student", "dpo"):
            values[stage] |= {"num_processes": 2, "launcher": launcher}
        # Long enough to be killed in its middle.
        values["student"]["phases"][0]["steps"] = 60
        for stage in ("evaluation", *(() if self.train else ("student", "preferences", "dpo"))):
            del values[stage]
        ray = {"task_runner": "ray", "ray": {"address": self.address, "wait_seconds": 120}}
        self.folder.mkdir(exist_ok=True)
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump({**values, "engine": ray if self.address else {}}))
        return path

    def driven(self) -> subprocess.CompletedProcess[str]:
        code = f"from flows.distillation import distill; distill(run={str(self.written())!r})"
        words = ["unshare", "--fork", "--pid", "--mount-proc"] if self.apart else []
        return self._python(self.driven_from, words, code)

    def _python(
        self, address: str, words: Sequence[str], code: str
    ) -> subprocess.CompletedProcess[str]:
        near = {**STORE, "LIGHTGEN_CACHE": str(self.folder / "near")} if self.bucket else {}
        done = subprocess.run(
            within(address, *words, sys.executable, "-c", code),
            env={**environment(), **near},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        with (self.folder / "flow.log").open("a") as log:
            log.write(done.stdout + done.stderr)
        return done

    def distil(self) -> float:
        started = time.monotonic()
        done = self.driven()
        if done.returncode:
            log = self.folder / "flow.log"
            raise SystemExit(f"{log}:\n{(done.stdout + done.stderr)[-4000:]}")
        return time.monotonic() - started

    def bring(self) -> None:
        """What is in the bucket, into a folder."""
        code = f"from pipeline.roots import *; print(fetched(root_of({self.bucket!r})))"
        folder = self._python(FIRST, [], code).stdout.split()[-1]
        shutil.copytree(folder, self.root)

    def refusal(self, words: str) -> str:
        """The sentence with these words, by which the run ends."""
        done = self.driven()
        lines = [line for line in (done.stdout + done.stderr).splitlines() if words in line]
        assert done.returncode
        assert lines, done.stderr[-4000:]
        return lines[-1].strip()


if __name__ == "__main__":
    main()
