"""How much of the time the encoders are at work, threads beside them against none.

    PYTHONPATH=. python tests/benchmarks/encoding.py [--pictures 2048] [--captions 10240]

A stand-in takes as long as the real encoder would, asleep, as a process is whose device computes:
9 ms a picture at 256 and 512 px together (SD 3.5's VAE, 1.39 TFLOP at 150 TFLOP/s) and 30 us a
token (T5-XXL, 9.5 GFLOP at 320 TFLOP/s). Pictures are 512 px JPEGs read from a Lance table, means
are kept of them; states are 4096 wide, kept as int8, 2048 captions a shard. Both forms make the
same files, which is checked. "In the model" is the share of the time from the first picture read to
the last byte flushed, tails included. CPU ms a row is what the process spends beside the model.
"""

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from pipeline import encoded_text
from pipeline.config import FeaturesConfig
from pipeline.encoded_pictures import Fitting, View, in_batches, latent_rows, write_pictures
from pipeline.encoded_text import encode_batch, in_order, token_batches, write_text
from pipeline.encoders import batch_size
from pipeline.feature_tables import TEXT_INT8, features_table
from pipeline.features import CAPTIONS_PER_SHARD
from pipeline.quantization import group_of
from pipeline.tables import NO_COMPRESSION, Shard, Snapshot, Table, TableFolder, batches

Parts = list[tuple[str, list[tuple[str, str]]]]
SIZES, CHANNELS, STRIDE, WIDTH = (256, 512), 16, 8, 4096
VALUES = FeaturesConfig(
    autoencoder="stand-in",
    text_encoder="stand-in",
    image_sizes=SIZES,
    latents="means",
    text_states="int8",
    text_padding="longest",
)
IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), False),
        pa.field("caption_id", pa.string(), False),
        pa.field("width", pa.int32(), False),
        pa.field("image", pa.large_binary(), False, NO_COMPRESSION),
    ]
)


class Result(NamedTuple):
    """One form's work."""

    busy: float  # seconds inside the model
    wall: float
    processor: float
    files: list[str]


class StandIn:
    """Asleep for as long as it would compute, by a clock of its own."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def works(self, seconds: float, make: Callable[[int], Tensor]) -> Tensor:
        """What `make(number of the call)` makes, not before `seconds` are over."""
        begun = time.perf_counter()
        made = make(self.calls)
        time.sleep(max(0.0, begun + seconds - time.perf_counter()))
        self.seconds, self.calls = self.seconds + time.perf_counter() - begun, self.calls + 1
        return made


def measured(root: Path, work: Callable[[StandIn], list[Shard]]) -> Result:
    model, begun, processor = StandIn(), time.perf_counter(), time.process_time()
    shards = work(model)
    wall, spent = time.perf_counter() - begun, time.process_time() - processor
    shutil.rmtree(root)
    return Result(model.seconds, wall, spent, [shard.sha256 for shard in shards])


# --- pictures -----------------------------------------------------------------------------------


def jpegs(number: int) -> Iterator[bytes]:
    """512 px, each another, with about a photograph's detail."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        large, out = coarse.resize((512, 512), Image.Resampling.BICUBIC), io.BytesIO()
        large.save(out, "JPEG", quality=95, subsampling=0)
        yield out.getvalue()


def image_table(root: Path, number: int) -> Snapshot:
    names = [f"{row:016x}" for row in range(number)]
    columns = [names, names, [512] * number, list(jpegs(number))]
    rows = [pa.array(c, f.type) for c, f in zip(columns, IMAGES, strict=True)]
    folder = TableFolder(root, Table("images", 1, IMAGES), "benchmark")
    shard = folder.write_shard("pictures", [pa.RecordBatch.from_arrays(rows, schema=IMAGES)])
    return folder.commit([shard], "benchmark")


def view(root: Path, model: StandIn, size: int, seconds: float) -> View:
    """`seconds` a picture of 256 and 512 px together, shared out by their pixels."""
    table, cells = features_table(size, CHANNELS, STRIDE, "means"), size // STRIDE
    share = seconds * size**2 / sum(each**2 for each in SIZES)
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(VALUES.batch_size, CHANNELS, cells, cells, generator=generator).half()

    def encode(images: Tensor) -> Tensor:
        return model.works(share * len(images), lambda call: noise[: len(images)])

    def rows(pictures: pa.Table, values: Tensor) -> pa.RecordBatch:
        return latent_rows(pictures, values, size, table)

    return View(TableFolder(root, table, "benchmark"), "latents", size, encode, rows)


def one_by_one(pieces: Iterator[pa.Table], views: list[View]) -> list[Shard]:
    """Decode, encode, and write at the end: nothing beside anything."""
    rows: list[list[pa.RecordBatch]] = [[] for _ in views]
    with ThreadPoolExecutor(1) as alone:
        for batch in in_batches(pieces, VALUES.batch_size):
            ready = Fitting(SIZES, alone)(batch)
            for each, kept in zip(views, rows, strict=True):
                kept.append(each.rows(ready.rows, each.encode(ready.images[each.image_size])))
    return [
        each.folder.write_shard(each.shard, kept) for each, kept in zip(views, rows, strict=True)
    ]


def encode_pictures(root: Path, source: Snapshot, seconds: float, threads: bool) -> Result:
    def work(model: StandIn) -> list[Shard]:
        views = [view(root / f"{threads}", model, size, seconds) for size in SIZES]
        pieces = batches(root, source)
        if not threads:
            return one_by_one(pieces, views)
        return write_pictures(pieces, views, VALUES, "cpu", lambda rows: None)

    return measured(root / f"{threads}", work)


# --- text ---------------------------------------------------------------------------------------


def captions(number: int) -> Parts:
    """As many letters as a caption has tokens: 30 % short, cut at 128."""
    rng = np.random.default_rng(0)
    long = rng.normal(84, 30, number).clip(20, 128).astype(int)
    lengths = np.where(rng.random(number) < 0.3, rng.integers(5, 20, number), long)
    rows = [(f"{row:016x}", "x" * length) for row, length in enumerate(lengths.tolist())]
    firsts = range(0, number, CAPTIONS_PER_SHARD)
    return [(f"from {first}", rows[first : first + CAPTIONS_PER_SHARD]) for first in firsts]


class TextStandIn:
    """Gives states that are quantized already: that is work of the device, and in its time."""

    length = 128

    def __init__(self, model: StandIn, seconds: float) -> None:
        self.model, self.seconds = model, seconds
        generator = torch.Generator().manual_seed(0)
        shape = (VALUES.batch_size, self.length, WIDTH)
        self.values = torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return [[1] * len(text) for text in texts]

    def encode_tokens(self, tokens: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
        def states(call: int) -> Tensor:  # other rows each time: equal ones would be stored once
            return self.values[: len(tokens), :length].roll(call + 1, dims=2)

        seconds = self.seconds * length * len(tokens)
        return self.model.works(seconds, states), torch.tensor([len(row) for row in tokens])


def packed(states: Tensor, table: Table) -> dict[str, Tensor]:
    number, length, width = states.shape
    scales = torch.ones(number, length, width // group_of(width), dtype=torch.float16)
    whole = torch.ones(number)
    return {"states": states, "scales": scales, "error": whole, "finite": whole.bool()}


def text_one_by_one(encoder: Any, parts: Parts, folder: TableFolder) -> list[Shard]:
    """The same batches, nothing beside anything."""
    size, shards = batch_size(VALUES, "text"), []
    for name, given in parts:
        stored = (
            part
            for batch in token_batches(encoder, given, VALUES)
            for part in encode_batch(encoder, batch, TEXT_INT8, size)
        )
        shards.append(folder.write_shard(name, in_order(stored, given, TEXT_INT8)))
    return shards


def encode_text(root: Path, parts: Parts, seconds: float, threads: bool) -> Result:
    folder = TableFolder(root / f"{threads}", TEXT_INT8, "benchmark")

    def work(model: StandIn) -> list[Shard]:
        encoder: Any = TextStandIn(model, seconds)
        if not threads:
            return text_one_by_one(encoder, parts, folder)
        return write_text(encoder, parts, VALUES, folder, lambda rows: None)

    return measured(root / f"{threads}", work)


# --- both ---------------------------------------------------------------------------------------


def line(what: str, number: int, work: Callable[[bool], Result]) -> str:
    alone, beside = work(False), work(True)
    assert alone.files == beside.files, "both forms make the same files"
    shares = (f"{each.busy / each.wall:.1%}" for each in (beside, alone))
    spent = f"{1e3 * beside.processor / number:.2f}"
    cells = (f"{number / beside.wall:.1f}", *shares, f"{alone.wall / beside.wall:.2f}", spent)
    return f"| {what} | {number} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--captions", type=int, default=10240)
    parser.add_argument("--picture-ms", type=float, default=9.0)
    parser.add_argument("--token-us", type=float, default=30.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoded_text.pack = packed
    print("| | rows | rows/s | in the model | without threads | times as fast | CPU ms a row |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        source, seconds = image_table(root, args.pictures), args.picture_ms / 1e3
        pictures = line(
            "pictures, 256 and 512 px",
            args.pictures,
            lambda threads: encode_pictures(root, source, seconds, threads),
        )
        print(pictures, flush=True)
        parts, microseconds = captions(args.captions), args.token_us / 1e6
        work = lambda threads: encode_text(root, parts, microseconds, threads)  # noqa: E731
        print(line("captions, int8 states", args.captions, work))


if __name__ == "__main__":
    main()
