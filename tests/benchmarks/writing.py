"""Rows a second through `TableFolder.write_shard`, against memory-mapped .npy, fsync on both.

    PYTHONPATH=. python -m tests.benchmarks.writing --folder scratch [--shards 4] [--rounds 5]

Rows of the full shape: a latent of 32,768 B in one file of a shard, 60 tokens of T5-XXL states,
491,520 B, in the other. What is written lies in memory in batches of 64, as an encoder leaves it.
Ours checks the contract, writes, flushes, keeps a checksum of each file and publishes it by its
name; the other copies into the mapped array and flushes. They take turns; ratios are medians of
those within a round. Each round's files, 0.5 MB a row, are deleted after it.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.encoded_text import as_table
from pipeline.feature_tables import TEXT
from pipeline.tables import TableFolder
from tests.benchmarks.loading import FEATURES, TOKENS, VALUES, WIDTH

BATCH, PER_SHARD = 64, 512
Arrays = tuple[NDArray[np.float16], NDArray[np.uint16]]


def batches() -> list[Arrays]:
    """A shard's latents (B, c h w) and states (B, L, E)."""
    random, made = np.random.default_rng(0), []
    for _ in range(PER_SHARD // BATCH):
        latents = random.standard_normal((BATCH, VALUES), np.float32).astype(np.float16)
        bits = random.integers(0, 2**16, (BATCH, TOKENS, WIDTH), np.uint16)
        made.append((latents, bits))
    return made


def mapped(folder: Path, shards: int, given: list[Arrays]) -> None:
    for shard in range(shards):
        for place, (name, kind, shape) in enumerate(
            (("latents", np.float16, (VALUES,)), ("states", np.uint16, (TOKENS, WIDTH)))
        ):
            path = folder / f"{name}-{shard}.npy"
            out = np.lib.format.open_memmap(path, "w+", kind, (PER_SHARD, *shape))
            for number, each in enumerate(given):
                out[number * BATCH : (number + 1) * BATCH] = each[place]
            out.flush()
            del out
            fsync(path)
    fsync(folder)


def fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def latent_rows(given: list[Arrays]) -> Iterator[pa.RecordBatch]:
    kind = FEATURES.schema.field("means").type
    for number, (latents, _) in enumerate(given):
        ids = pa.array([f"{number:08d}{row:08d}" for row in range(BATCH)])
        lists = pa.FixedSizeListArray.from_arrays(pa.array(latents.ravel()), type=kind)
        yield pa.RecordBatch.from_arrays([ids, ids, lists], schema=FEATURES.schema)


def text_rows(given: list[Arrays]) -> Iterator[pa.Table]:
    for number, (_, bits) in enumerate(given):
        rows = [
            {"caption_id": f"{number:08d}{row:08d}", "length": TOKENS, "states": bits[row].data}
            for row in range(BATCH)
        ]
        yield as_table(rows, TEXT)


def ours(folder: Path, shards: int, given: list[Arrays]) -> None:
    for table, rows in ((FEATURES, latent_rows), (TEXT, text_rows)):
        place = TableFolder(folder, table, {})
        made = [place.write_shard(f"s{shard}", rows(given)) for shard in range(shards)]
        place.commit(made, "in")


WRITERS: dict[str, Callable[[Path, int, list[Arrays]], None]] = {
    ".npy memory-mapped, fsync": mapped,
    "TableFolder.write_shard and commit": ours,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="a new folder to write to")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    given, rows = batches(), args.shards * PER_SHARD
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WRITERS}
    for number in range(args.rounds):
        for name in list(WRITERS)[:: 1 if number % 2 else -1]:
            args.folder.mkdir(parents=True)
            wall, cpu = time.perf_counter(), time.process_time()
            WRITERS[name](args.folder, args.shards, given)
            seconds, used = time.perf_counter() - wall, time.process_time() - cpu
            found[name].append((rows / seconds, used / rows * 1e6))
            shutil.rmtree(args.folder)
    print(f"{rows} rows a round, load {os.getloadavg()[0]:.1f}\n")
    print("| writer | rows/s, median (least to most) | ratio | processor µs/row | ratio |")
    print("|---|---|---|---|---|")
    first = next(iter(found.values()))
    for name, each in found.items():
        rates, used = zip(*each, strict=True)
        ratio = statistics.median(a[0] / b[0] for a, b in zip(each, first, strict=True))
        cheaper = statistics.median(b[1] / a[1] for a, b in zip(each, first, strict=True))
        print(
            f"| {name} | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {ratio:.2f} | {statistics.median(used):,.0f} | {cheaper:.2f} |"
        )


if __name__ == "__main__":
    main()
