"""How fast `verify` reads, against `sha256sum` over the same files in the same run.

python -m tests.benchmarks.verification --mib 2048 --shard-mib 64
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.tables import NO_COMPRESSION, Table, TableFolder
from pipeline.verification import THREADS, verify

SCHEMA = pa.schema([pa.field("bytes", pa.large_binary(), False, NO_COMPRESSION)])


def fill(root: Path, mib: int, shard_mib: int) -> None:
    folder = TableFolder(root, Table("rows", 1, SCHEMA), None)
    shards = []
    for number in range(mib // shard_mib):
        random = np.random.default_rng(number)
        rows = pa.record_batch([[random.bytes(2**18) for _ in range(shard_mib * 4)]], schema=SCHEMA)
        shards.append(folder.write_shard(f"shard{number}", [rows]))
    folder.commit(shards, "in")


def seconds(act: object) -> float:
    started = time.perf_counter()
    act()  # type: ignore[operator]
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--shard-mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="verify-"))
    try:
        fill(root, args.mib, args.shard_mib)
        files = [str(path) for path in root.glob("tables/*/data/*.lance")]
        plain, ours = [], []
        for _ in range(args.rounds):  # interleaved: other work on the machine meets both
            plain.append(seconds(lambda: subprocess.run(["sha256sum", *files], stdout=-3)))
            ours.append(seconds(lambda: verify(root)))
        mib = sum(Path(file).stat().st_size for file in files) / 2**20
        rate, other = mib / min(ours), mib / min(plain)
        print("| what | MiB/s | against sha256sum |\n|---|---|---|")
        print(f"| sha256sum, one process | {other:,.0f} | 1.00 |")
        print(f"| verify, {THREADS} threads | {rate:,.0f} | {rate / other:.2f} |")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
