"""Rows a second of the loader, against memory-mapped .npy, WebDataset, MosaicML Streaming, LanceDB.

    PYTHONPATH=. python -m tests.benchmarks.loading --folder scratch [--rows 2048] [--rounds 5]

Rows have the full shape: a latent of 32,768 B and 60 tokens of T5-XXL states, 491,520 B. Every
loader ends in the same batch of 64: normalised float32 latents, bfloat16 states, lengths. Ours and
the memory-mapped arrays join text by caption in a random order over all rows; the others hold
joined rows and shuffle as they do. Loaders take turns. A ratio to the arrays is the median of those
within a round; on a busy machine that of the best rounds says more. In memory: each loader's files
were read from end to end before. Cold: a loader's files are dropped from memory before its turn.
Then an eighth of the rows is read, as of a table that is much larger than memory; and in another
turn all of them: then what the system's read-ahead brings too much of is used in the end. Five
copies are written, 2.6 MB a row in all, and deleted at the end. What is not installed is said.
"""

import argparse
import gc
import importlib.util
import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import flat_pages
from pipeline.batches import Batch, FeatureBatches, TableRows, TextStates
from pipeline.draws import row_generators
from pipeline.feature_tables import TEXT, features_table
from pipeline.prefetch import Place, Prefetch, following
from pipeline.tables import TableFolder
from pipeline.training import Part

CELLS, CHANNELS, TOKENS, WIDTH = 32, 16, 60, 4096
VALUES = CHANNELS * CELLS**2
SCALE, SHIFT, BATCH, PER_SHARD = 0.36, 0.12, 64, 512
WARM_EPOCHS = 3
SHUFFLED = 512  # rows in memory from which WebDataset draws
PART = 8  # of a table much larger than memory, an epoch's first eighth stands for all of it
Batches = Iterator[tuple[Tensor, Tensor, Tensor]]
FEATURES = features_table(256, CHANNELS, 8, "means")


def latent(picture: int) -> NDArray[np.float16]:
    return np.random.default_rng(picture).standard_normal(VALUES).astype(np.float16)


def states(caption: int) -> NDArray[np.uint16]:
    bits = np.random.default_rng(10**6 + caption).bytes(2 * TOKENS * WIDTH)
    return np.frombuffer(bits, np.uint16).reshape(TOKENS, WIDTH)


def captions_of(rows: int) -> list[int]:
    """The caption of each picture: texts lie in another order."""
    return np.random.default_rng(0).permutation(rows).tolist()


def joined(rows: int) -> Iterator[tuple[bytes, bytes]]:
    for picture, caption in enumerate(captions_of(rows)):
        yield latent(picture).tobytes(), states(caption).tobytes()


def finished(latents: NDArray[np.float16], bits: NDArray[np.uint16]) -> tuple[Tensor, ...]:
    """What every loader ends in, from (B, c h w) and (B, L, E)."""
    normal = (torch.from_numpy(latents).float() - SHIFT) * SCALE
    lengths = torch.full((len(bits),), TOKENS)
    return (
        normal.view(-1, CHANNELS, CELLS, CELLS),
        torch.from_numpy(bits).view(torch.bfloat16),
        lengths,
    )


def collated(samples: list[tuple[Any, Any]]) -> tuple[Tensor, ...]:
    """Rows as bytes, copied once, into memory of huge pages as ours."""
    latents, bits = (
        np.empty((len(samples), n), t) for n, t in ((VALUES, "f2"), (TOKENS * WIDTH, "u2"))
    )
    for place, (one, other) in enumerate(samples):
        latents[place] = np.frombuffer(one, np.float16)
        bits[place] = np.frombuffer(other, np.uint16)
    return finished(latents, bits.reshape(-1, TOKENS, WIDTH))


def in_batches(samples: Iterator[tuple[Any, Any]]) -> Batches:
    while len(some := list(itertools.islice(samples, BATCH))) == BATCH:
        yield collated(some)  # type: ignore[misc]


# --- ours and memory-mapped arrays --------------------------------------------------------------


def write_ours(folder: Path, rows: int) -> None:
    features, text = TableFolder(folder, FEATURES, {}), TableFolder(folder, TEXT, {})
    captions, shards, texts = captions_of(rows), [], []
    for first in range(0, rows, PER_SHARD):
        numbers = range(first, min(first + PER_SHARD, rows))
        flat = pa.array(np.concatenate([latent(n) for n in numbers]))
        columns = [
            pa.array([f"p{n:015d}" for n in numbers]),
            pa.array([f"c{captions[n]:015d}" for n in numbers]),
            pa.FixedSizeListArray.from_arrays(flat, type=FEATURES.schema.field("means").type),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=FEATURES.schema)
        shards.append(features.write_shard(f"s{first}", [batch]))
        columns = [
            pa.array([f"c{n:015d}" for n in numbers]),
            pa.array([states(n).tobytes() for n in numbers], pa.large_binary()),
            pa.array([TOKENS] * len(numbers), pa.int32()),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=TEXT.schema)
        texts.append(text.write_shard(f"s{first}", [batch]))
    features.commit(shards, "in")
    text.commit(texts, "in")


def opened(folder: Path, table: Any, mapped: bool) -> TableRows:
    snapshot = TableFolder(folder, table, {}).find("in")
    assert snapshot is not None
    rows = TableRows.open(folder, snapshot, table.schema.names, 0)
    assert rows.mapped
    if not mapped:
        rows.mapped = {}
    return rows


def ours(folder: Path, rows: int, epochs: int, threads: int, mapped: bool = True) -> Batches:
    values = {"cells": CELLS, "scale": SCALE, "shift": SHIFT, "batch_size": BATCH, "seed": 0}
    source, text = (opened(folder, table, mapped) for table in (FEATURES, TEXT))
    batches = FeatureBatches.load(source, TextStates(text), **values)  # type: ignore[arg-type]
    for memory, width in (
        (batches.text.memory["states"], 2 * TOKENS * WIDTH),
        (batches.source._memory, 2 * VALUES),
        (batches.memory, 4 * VALUES),
    ):  # touched before, as it is after a training's first steps
        all_at_once = [memory.empty(BATCH * width).fill_(0) for _ in range(threads + 3)]
        del all_at_once

    def make(place: Place) -> Batch:
        part = place[1].of(BATCH)
        return batches.take(place[0], part, row_generators(0, place[0], part))

    def expect(place: Place) -> None:
        batches.expect(place[0], place[1].of(BATCH))

    def all_of_them() -> Batches:
        steps = epochs * (rows // BATCH)
        follow = partial(following, 1, 0, steps)
        with Prefetch(make, follow, threads=threads, expect=expect) as ready:
            for step in range(steps):
                batch = ready((step, Part()))
                yield batch.latents, batch.text.values, batch.lengths

    return all_of_them()


def write_arrays(folder: Path, rows: int) -> None:
    folder.mkdir()
    for name, kind, shape, make in (
        ("latents", np.float16, (rows, VALUES), latent),
        ("states", np.uint16, (rows, TOKENS, WIDTH), states),
    ):
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape)
        for number in range(rows):
            out[number] = make(number)
        out.flush()


def arrays(folder: Path, rows: int, epochs: int) -> Batches:
    """As plain as it gets: rows by number, text by the row of its caption."""
    latents, text = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("latents", "states"))
    captions = np.array(captions_of(rows))

    def all_of_them() -> Batches:
        for epoch in range(epochs):
            order = np.random.Generator(np.random.Philox(key=[0, epoch])).permutation(rows)
            for first in range(0, rows - BATCH + 1, BATCH):
                mine = order[first : first + BATCH]
                yield finished(latents[mine], text[captions[mine]])  # type: ignore[misc]

    return all_of_them()


# --- the others ---------------------------------------------------------------------------------


def again(samples: Any, epochs: int) -> Iterator[Any]:
    return itertools.chain.from_iterable(iter(samples) for _ in range(epochs))


def write_tars(folder: Path, rows: int) -> None:
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=PER_SHARD, verbose=0) as writer:
        for number, (one, other) in enumerate(joined(rows)):
            writer.write({"__key__": f"{number:08d}", "latent": one, "states": other})


def tars(folder: Path, rows: int, epochs: int) -> Batches:
    import webdataset

    files = sorted(map(str, folder.glob("*.tar")))
    samples = webdataset.WebDataset(files, shardshuffle=len(files), seed=0).shuffle(SHUFFLED)
    return in_batches((s["latent"], s["states"]) for s in again(samples, epochs))


def write_mds(folder: Path, rows: int) -> None:
    from streaming import MDSWriter

    columns = {"latent": "bytes", "states": "bytes"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=2**28) as writer:
        for one, other in joined(rows):
            writer.write({"latent": one, "states": other})


def mds(folder: Path, rows: int, epochs: int) -> Batches:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    samples = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, shuffle_seed=0)
    return in_batches((s["latent"], s["states"]) for s in again(samples, epochs))


def write_joined(folder: Path, rows: int) -> None:
    kinds = pa.list_(pa.float16(), VALUES), pa.list_(pa.uint16(), TOKENS * WIDTH)
    schema = pa.schema(
        [pa.field(n, k, False) for n, k in zip(("latent", "states"), kinds, strict=True)]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        rest = joined(rows)
        while some := list(itertools.islice(rest, 64)):
            flat = [
                pa.array(np.frombuffer(b"".join(each), k.value_type.to_pandas_dtype()))
                for each, k in zip(zip(*some, strict=True), kinds, strict=True)
            ]
            lists = [
                pa.FixedSizeListArray.from_arrays(f, type=k)
                for f, k in zip(flat, kinds, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(lists, schema=schema)

    lance.write_dataset(batches(), f"{folder}/joined.lance", schema, max_rows_per_file=PER_SHARD)


def views(batch: pa.RecordBatch) -> list[tuple[Any, Any]]:
    columns = [
        c.flatten().to_numpy(zero_copy_only=False).reshape(len(c), -1) for c in batch.columns
    ]
    return list(zip(*columns, strict=True))


def lancedb_stream(folder: Path, rows: int, epochs: int, splits: int) -> Batches:
    import lancedb
    from lancedb.streaming import StreamingDataset

    table = lancedb.connect(folder).open_table("joined")
    samples = StreamingDataset(
        table, num_splits=splits, shuffle_seed=0, transform=views, read_batch_size=16
    )
    return in_batches(again(samples, epochs))


def pylance_torch(folder: Path, rows: int, epochs: int) -> Batches:
    """Batches in the order of the table: it shuffles no rows."""
    from lance.torch.data import LanceDataset

    def to_tensors(batch: pa.RecordBatch, **more: Any) -> Any:
        return collated(views(batch))

    data = LanceDataset(f"{folder}/joined.lance", BATCH, to_tensor_fn=to_tensors, batch_readahead=2)
    return (batch for batch in again(data, epochs) if len(batch[2]) == BATCH)


# --- measuring ----------------------------------------------------------------------------------


Loader = tuple[str, str, Callable[[Path, int, int], Batches], str]  # name, folder, open, module
WRITERS = {"ours": write_ours, "npy": write_arrays, "tars": write_tars, "mds": write_mds,
           "joined": write_joined}  # fmt: skip
PLAIN = ".npy memory-mapped"
LOADERS: list[Loader] = [
    (PLAIN, "npy", arrays, "numpy"),
    ("ours, no thread", "ours", partial(ours, threads=0), "lance"),
    ("ours, 1 thread", "ours", partial(ours, threads=1), "lance"),
    ("ours, 2 threads", "ours", partial(ours, threads=2), "lance"),
    ("ours by sorted take, 1 thread", "ours", partial(ours, threads=1, mapped=False), "lance"),
    ("WebDataset", "tars", tars, "webdataset"),
    ("MosaicML StreamingDataset", "mds", mds, "streaming"),
    ("LanceDB StreamingDataset, 2 splits", "joined", partial(lancedb_stream, splits=2), "lancedb"),
    ("LanceDB StreamingDataset, 8 splits", "joined", partial(lancedb_stream, splits=8), "lancedb"),
    ("pylance LanceDataset, unshuffled", "joined", pylance_torch, "lance"),
]


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def drop(folder: Path) -> float:
    """Drop the files from memory; the share of them that stayed there all the same."""
    gc.collect()
    there, asked = 0, 0
    for path in files_of(folder):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        for place in range(0, path.stat().st_size, 2**20):
            asked += 1
            try:
                there += os.preadv(handle, [bytearray(1)], place, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
        os.close(handle)
    return there / asked


def read_whole(folder: Path) -> None:
    """Files in memory as a reader from end to end leaves them: in pages as large as can be.

    Else they would be in pages as their last readers asked for them, and a first look at a page
    costs as much whatever its size.
    """
    drop(folder)
    for path in files_of(folder):
        with path.open("rb", buffering=0) as file:
            while file.read(2**20):
                pass


def measured(
    loader: Loader, root: Path, rows: int, cold: bool, part: int = 1
) -> tuple[float, float]:
    """Rows a second, and the share of files that was in memory; of the first 1/part of an epoch."""
    _, folder, load, _ = loader
    epochs = 1 if cold else WARM_EPOCHS
    wanted = epochs * (rows - 9 * BATCH) if part == 1 else rows // part
    batches = load(root / folder, rows, epochs)
    kept = drop(root / folder) if cold else 1.0
    started, seen = time.perf_counter(), 0
    for latents, _, lengths in batches:
        assert latents.shape[0] == len(lengths) == BATCH
        seen += BATCH
        if part > 1 and seen >= wanted:
            break
    seconds = time.perf_counter() - started
    assert seen >= wanted, f"{loader[0]} gave {seen} rows"
    return seen / seconds, kept


def check(root: Path, rows: int) -> None:
    """Ours and the arrays give the same batches in the same order, bit for bit."""
    for one, other in zip(
        ours(root / "ours", rows, 2, 1), arrays(root / "npy", rows, 2), strict=True
    ):
        assert all(
            torch.equal(a.view(torch.uint8), b.view(torch.uint8))
            for a, b in zip(one, other, strict=True)
        )


def table(title: str, loaders: list[Loader], found: dict[str, list[tuple[float, float]]]) -> None:
    print(f"\n| {title} | rows/s, median | rows/s, best | ratio, median | ratio of the best |")
    print("|---|---|---|---|---|")
    plain = [rate for rate, _ in found[PLAIN]]
    for name, *_ in loaders:
        rates = [rate for rate, _ in found[name]]
        ratio = statistics.median(a / b for a, b in zip(rates, plain, strict=True))
        print(
            f"| {name} | {statistics.median(rates):,.0f} | {max(rates):,.0f} | {ratio:.2f} "
            f"| {max(rates) / max(plain):.2f} |",
            flush=True,
        )


def compare(
    loaders: list[Loader], root: Path, rows: int, rounds: int, cold: bool, part: int = 1
) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in loaders}
    for number in range(rounds + (not cold)):  # a first round to warm up
        for loader in loaders[number % len(loaders) :] + loaders[: number % len(loaders)]:
            result = measured(loader, root, rows, cold, part)
            if cold or number:
                found[loader[0]].append(result)
    title = "files not in memory" if cold else "files in memory"
    table(title if part == 1 else f"{title}, 1/{part} of the rows read", loaders, found)
    if cold:
        kept = max(each[1] for results in found.values() for each in results)
        print(f"\nAt most {kept:.1%} of a loader's files were still in memory.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--folder", type=Path, required=True, help="a new folder on the disk to measure"
    )
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="loaders whose names have this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    flat_pages.PROBED = 1  # what is mapped and looked at cannot be dropped from memory
    chosen = [each for each in LOADERS if each[0] == PLAIN or args.only in each[0]]
    there = [each for each in chosen if importlib.util.find_spec(each[3])]
    for name, _, _, module in chosen:
        if not importlib.util.find_spec(module):
            print(f"{name}: not installed")
    args.folder.mkdir(parents=True)
    try:
        for name in dict.fromkeys(["ours", *(folder for _, folder, *_ in there)]):
            WRITERS[name](args.folder / name, args.rows)
            for path in files_of(args.folder / name):  # only what is on disk can be dropped
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        check(args.folder, args.rows)
        print(f"{args.rows} rows, batches of {BATCH}, load {os.getloadavg()[0]:.1f}")
        for folder in {each[1] for each in there}:
            read_whole(args.folder / folder)
        for cold, part in ((False, 1), (True, PART), (True, 1)):
            compare(there, args.folder, args.rows, args.rounds, cold, part)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    finally:
        shutil.rmtree(args.folder)


if __name__ == "__main__":
    main()
