"""A table in a bucket against the same in a folder, in one run; or writers killed at random.

python -m tests.benchmarks.buckets --shards 12 --mib 16
python -m tests.benchmarks.buckets --kills 40 --seed 1

The store is moto's, in this process and written in Python: what it costs a byte is its own. What is
ours is the number of requests.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from pipeline.roots import root_of
from pipeline.tables import NO_COMPRESSION, Table, TableFolder, missing_files, read, take
from tests.pipeline.bucket_writer import write
from tests.pipeline.object_store import ObjectStore
from tests.pipeline.test_tables_in_buckets import files

SCHEMA = pa.schema([pa.field("bytes", pa.large_binary(), False, NO_COMPRESSION)])
ROW = 2**15
NAMES = [f"n{number}" for number in range(6)]


def machine(name: str) -> None:
    """From now on this process is another machine, which has nothing near."""
    os.environ["LIGHTGEN_CACHE"] = str(Path(tempfile.gettempdir()) / f"{name}-{os.getpid()}")


def fill(root: str, shards: int, mib: int) -> Any:
    folder = TableFolder(root, Table("rows", 1, SCHEMA), None)

    def rows(number: int) -> pa.RecordBatch:
        drawn = np.random.default_rng(number)
        return pa.record_batch([[drawn.bytes(ROW) for _ in range(mib * 2**20 // ROW)]], SCHEMA)

    made = [folder.write_shard(f"shard{n}", (rows(n) for _ in range(1))) for n in range(shards)]
    return folder.commit(made, "in")


def compare(store: ObjectStore, places: dict[str, str], shards: int, mib: int) -> None:
    seconds: dict[tuple[str, str], float] = {}
    requests: dict[str, int] = {}
    snapshot: Any = None

    def timed(what: str, act: Callable[[str], Any]) -> Any:
        for where, root in places.items():
            asked, started = len(store.asked), time.perf_counter()
            found = act(root)
            seconds[what, where] = time.perf_counter() - started
            requests[what] = len(store.asked) - asked
        return found

    snapshot = timed(f"write {shards} shards of {mib} MiB, commit", lambda r: fill(r, shards, mib))
    machine("second")
    timed("the same again, elsewhere", lambda root: fill(root, shards, mib))
    rows = np.random.default_rng(0).integers(0, snapshot.rows, 64).tolist()
    timed("64 random rows, nothing near", lambda root: take(root, snapshot, rows, ["bytes"]))
    timed("read all, nothing near", lambda root: read(root, snapshot).num_rows)
    timed("read all again", lambda root: read(root, snapshot).num_rows)
    timed("64 random rows, all near", lambda root: take(root, snapshot, rows, ["bytes"]))
    print("| what | folder, s | bucket, s | bucket / folder | requests |")
    print("|---|---|---|---|---|")
    for what, asked in requests.items():
        folder, bucket = seconds[what, "folder"], seconds[what, "bucket"]
        print(f"| {what} | {folder:.3f} | {bucket:.3f} | {bucket / folder:.1f} | {asked} |")


def killed(store: ObjectStore, root: str, wanted: dict[str, str], draws: random.Random) -> int:
    """One table by writers of which three may die, each a machine of its own; how many did."""
    kills = 0
    while True:
        machine(f"writer-{draws.random()}")
        command = [sys.executable, "-m", "tests.pipeline.bucket_writer", root, "in", *NAMES]
        writer = subprocess.Popen(command)
        last = len(store.asked) + (draws.randint(1, 70) if kills < 3 else 10**9)
        while writer.poll() is None and len(store.asked) < last:
            time.sleep(0.0005)
        writer.kill()
        if writer.wait() == 0:
            break
        kills += 1
    snapshot = write(root, "in", NAMES)
    assert files(root) == wanted
    assert not missing_files(root_of(root), snapshot)
    assert len(list(root_of(root).glob("tables/*/_versions/*.manifest"))) == 1
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--mib", type=int, default=16)
    parser.add_argument("--kills", type=int, default=0, help="tables whose writers are killed")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    store = ObjectStore()
    os.environ.update(store.variables())
    httpx.put(f"{store.url}/bucket").raise_for_status()
    with tempfile.TemporaryDirectory(prefix="buckets-") as place:
        tempfile.tempdir, folder = place, f"{place}/folder"
        machine("first")
        if not args.kills:
            places = {"folder": folder, "bucket": "s3://bucket/x"}
            compare(store, places, args.shards, args.mib)
            return
        write(folder, "in", NAMES)
        wanted, draws = files(folder), random.Random(args.seed)
        each = [killed(store, f"s3://bucket/{n}", wanted, draws) for n in range(args.kills)]
        print("| tables | writers killed | tables whole, one version, same bytes |\n|---|---|---|")
        print(f"| {args.kills} | {sum(each)} | {len(each)} |")


if __name__ == "__main__":
    main()
