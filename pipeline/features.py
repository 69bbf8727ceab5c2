"""Features: what the student trains on, so that training loads neither VAE nor T5.

In:    `captions`, `images`, and `verdicts` through the run's thresholds.
Out:   `text`, one row for every caption that has an accepted picture, and for each size `px` a
       table `features_<px>`, one row for every accepted picture drawn at the smallest size that
       is not below `px`, reduced to `px` where it is larger. With `features.alignment_encoder`
       also `alignment_<px>`: what a vision model sees in the same pictures, in the same order.
Rerun: encodes only what is new: a shard is named by the captions or pictures that it holds.

Shapes: B rows, C latent channels, h w latent cells (pixels / stride), L text tokens, E text width,
N image tokens, F width of the vision model.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightgen_model.config import ModelConfig
from pipeline.captions import count, spread
from pipeline.config import FeaturesConfig, RunConfig
from pipeline.decoding import square
from pipeline.description import Description, Grid, Picture
from pipeline.pictures import Cell, side_by_side
from pipeline.tables import (
    NO_COMPRESSION,
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    batches,
    identifier,
    read,
    take,
)
from pipeline.verdicts import decoded, judged

if TYPE_CHECKING:
    # Loaded inside functions: torch takes seconds, and a flow that finds everything needs none.
    from lightgen_model.autoencoder import Autoencoder
    from lightgen_model.text_encoder import TextEncoder
    from lightgen_model.vision_encoder import VisionEncoder

STAGE = "features"
CAPTIONS_PER_SHARD = 2048
UNUSED = "no size needs it"
SHOWN = 9

TEXT = Table(
    name="text",
    version=1,
    schema=pa.schema(
        [
            pa.field("caption_id", pa.string(), False),
            # The bits of bfloat16 states (L, E), without padding.
            pa.field("states", pa.large_binary(), False, NO_COMPRESSION),
            pa.field("length", pa.int32(), False),  # L
        ]
    ),
)


def alignment_table(size: int) -> Table:
    """A table of its own, so that features are the same with it and without."""
    fields = [
        pa.field("image_id", pa.string(), False),
        # The bits of float16 features (N, F).
        pa.field("alignment", pa.large_binary(), False, NO_COMPRESSION),
    ]
    return Table(name=alignment_of(size), version=1, schema=pa.schema(fields))


def alignment_of(size: int) -> str:
    return f"alignment_{size}"


def features_table(size: int, channels: int, stride: int) -> Table:
    """Moments are (2C, h, w) flat, mean then log-variance, as the VAE gives them."""
    width = 2 * channels * (size // stride) ** 2
    fields = [
        pa.field("image_id", pa.string(), False),
        pa.field("caption_id", pa.string(), False),
        pa.field("moments", pa.list_(pa.float16(), width), False),
    ]
    return Table(name=name_of(size), version=1, schema=pa.schema(fields))


def name_of(size: int) -> str:
    return f"features_{size}"


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    inputs = _inputs(upstream)
    found = {name: folder.find(inputs) for name, folder in _folders(config).items()}
    whole = {name: snapshot for name, snapshot in found.items() if snapshot is not None}
    return Manifest.of(STAGE, whole) if len(whole) == len(found) else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return tuple(folder.place for folder in _folders(config).values())


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folders = _folders(config)
    works = _text_works(config, upstream, folders["text"])
    for size in _values(config).image_sizes:
        works += _picture_works(config, upstream, size, folders[name_of(size)])
        if alignment_of(size) in folders:
            works += _picture_works(config, upstream, size, folders[alignment_of(size)])
    return works


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    table, shard = work.name.split(":")
    kinds = {"text": _text_rows, "alignment": _alignment_rows}
    encode = kinds.get(table.split("_")[0], _picture_rows)
    rows = encode(config, upstream, work, progress)
    return [_folders(config)[table].write_shard(shard, rows)]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    inputs = _inputs(upstream)
    return Manifest.of(
        STAGE,
        {
            name: folder.commit([s for s in shards if s.table == folder.name], inputs)
            for name, folder in _folders(config).items()
        },
    )


def _values(config: RunConfig) -> FeaturesConfig:
    assert config.features is not None
    return config.features


def _inputs(upstream: Mapping[str, Manifest]) -> str:
    """The verdicts' content holds the thresholds, too."""
    return identifier([upstream[stage].content for stage in ("captions", "images", "verdicts")])


def _folders(config: RunConfig) -> dict[str, TableFolder]:
    """The size of a batch is a value: it may change the last bit of what an encoder gives."""
    values = _values(config)
    shared = {"batch_size": values.batch_size, "dtype": values.dtype}
    text = {**shared, "encoder": text_encoder_identity(values), "length": values.text_length}
    pictures = {**shared, "encoder": autoencoder_identity(values)}
    folders = {"text": TableFolder(config.root, TEXT, text)}
    model = config.student.model if config.student else ModelConfig()
    for size in values.image_sizes:
        table = features_table(size, model.latent_channels, model.latent_stride)
        source = source_size(config, size)
        folders[table.name] = TableFolder(config.root, table, {**pictures, "drawn at": source})
        if values.alignment_encoder:
            seen = {
                **shared,
                "encoder": weights_identity(
                    values.alignment_encoder, values.alignment_encoder_revision
                ),
                "drawn at": source,
                "grid": model.grid(size),
            }
            folder = TableFolder(config.root, alignment_table(size), seen)
            folders[folder.table.name] = folder
    return folders


def source_size(config: RunConfig, size: int) -> int:
    """The smallest size drawn that need not be enlarged."""
    assert config.images is not None
    return min(drawn for drawn in config.images.image_sizes if drawn >= size)


# --- encoders -----------------------------------------------------------------------------------


def autoencoder_identity(values: FeaturesConfig) -> str:
    return weights_identity(values.autoencoder, values.autoencoder_revision)


def text_encoder_identity(values: FeaturesConfig) -> str:
    return weights_identity(values.text_encoder, values.text_encoder_revision)


def weights_identity(place: str, revision: str | None) -> str:
    """What a folder holds, or a repository at its revision."""
    folder = Path(place)
    if not folder.is_dir():
        return f"{place}@{revision}"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return _folder_sum(place, tuple(facts))


@lru_cache(maxsize=16)
def _folder_sum(place: str, facts: tuple[tuple[str, int, int], ...]) -> str:
    """Summed again only when a file has changed; the name of the folder is not part of it."""
    total = hashlib.sha256()
    for name, _, _ in facts:
        with open(name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{Path(name).relative_to(place)}:{content}\n".encode())
    return total.hexdigest()


@cache
def autoencoder(values: FeaturesConfig, device: str) -> "Autoencoder":
    """One a process."""
    import torch

    from lightgen_model.autoencoder import Autoencoder

    dtype = getattr(torch, values.dtype)
    return Autoencoder.load(
        values.autoencoder,
        values.autoencoder_revision,
        values.autoencoder_subfolder,
        device,
        dtype,
    )


@cache
def text_encoder(values: FeaturesConfig, device: str) -> "TextEncoder":
    """One a process."""
    import torch

    from lightgen_model.text_encoder import TextEncoder

    return TextEncoder.load(
        values.text_encoder,
        values.text_length,
        values.text_encoder_revision,
        device,
        getattr(torch, values.dtype),
    )


@cache
def vision_encoder(values: FeaturesConfig, device: str) -> "VisionEncoder":
    """One a process."""
    import torch

    from lightgen_model.vision_encoder import VisionEncoder

    assert values.alignment_encoder is not None
    dtype = getattr(torch, values.dtype)
    place, revision = values.alignment_encoder, values.alignment_encoder_revision
    return VisionEncoder.load(place, revision, device, dtype)


# --- text ---------------------------------------------------------------------------------------


def _text_works(
    config: RunConfig, upstream: Mapping[str, Manifest], folder: TableFolder
) -> list[Work]:
    works = []
    for shard in upstream["captions"].snapshots["captions"].shards:
        captions = _wanted_captions(config, upstream, shard.name)
        for first in range(0, len(captions), CAPTIONS_PER_SHARD):
            chosen = captions[first : first + CAPTIONS_PER_SHARD]
            name = identifier(folder.fingerprint, chosen)
            works.append(Work(f"text:{name}", (shard.name,), first, len(chosen)))
    return works


def _wanted_captions(
    config: RunConfig, upstream: Mapping[str, Manifest], shard: str
) -> list[tuple[str, str]]:
    """The captions of a shard that have an accepted picture at a size that is used."""
    snapshot = upstream["captions"].snapshots["captions"]
    table = read(config.root, snapshot, ["caption_id", "caption", "keep"], [shard])
    kept = table.filter(table["keep"])
    wanted = _wanted_caption_ids(config, upstream)
    pairs = zip(kept["caption_id"].to_pylist(), kept["caption"].to_pylist(), strict=True)
    return [(caption_id, caption) for caption_id, caption in pairs if caption_id in wanted]


def _wanted_caption_ids(config: RunConfig, upstream: Mapping[str, Manifest]) -> set[str]:
    table = judged(config, upstream)
    return set(table.filter(pa.array(_used(config, table)))["caption_id"].to_pylist())


def _used(config: RunConfig, table: pa.Table) -> NDArray[np.bool_]:
    """Accepted, and drawn at a size that a features table is made from."""
    sources = [source_size(config, size) for size in _values(config).image_sizes]
    accepted: NDArray[np.bool_] = table["accepted"].to_numpy()
    return accepted & np.isin(table["width"].to_numpy(), sources)


def _text_rows(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    values = _values(config)
    captions = _wanted_captions(config, upstream, work.sources[0])
    captions = captions[work.first : work.first + work.rows]
    encoder = text_encoder(values, config.device)
    for first in range(0, len(captions), values.batch_size):
        chosen = captions[first : first + values.batch_size]
        yield encode_text(encoder, chosen)
        progress(first + len(chosen))


def encode_text(encoder: "TextEncoder", captions: Sequence[tuple[str, str]]) -> pa.RecordBatch:
    """Rows of one batch of captions: only the states of real tokens are kept."""
    import torch

    states, lengths = encoder.encode([caption for _, caption in captions])  # (B, L, E), (B,)
    bits = states.to(torch.bfloat16).view(torch.int16).cpu().numpy()
    sizes = lengths.tolist()
    columns = {
        "caption_id": [caption_id for caption_id, _ in captions],
        "states": [row[:size].tobytes() for row, size in zip(bits, sizes, strict=True)],
        "length": sizes,
    }
    return pa.RecordBatch.from_pydict(columns, schema=TEXT.schema)


# --- pictures -----------------------------------------------------------------------------------


def _picture_works(
    config: RunConfig, upstream: Mapping[str, Manifest], size: int, folder: TableFolder
) -> list[Work]:
    """One shard of features a shard of images, of the pictures in it that are accepted."""
    table = judged(config, upstream)
    fits = table["width"].to_numpy() == source_size(config, size)
    chosen = table["accepted"].to_numpy() & fits
    image_ids = table["image_id"].to_pylist()
    works, first = [], 0
    for shard in upstream["images"].snapshots["images"].shards:
        rows = np.flatnonzero(chosen[first : first + shard.rows])
        if len(rows):
            accepted = [image_ids[first + row] for row in rows]
            name = identifier(folder.fingerprint, shard.sha256, accepted)
            works.append(Work(f"{folder.table.name}:{name}", (shard.name,), first, len(rows)))
        first += shard.rows
    return works


def _picture_rows(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    values = _values(config)
    size = int(work.name.split(":")[0].removeprefix("features_"))
    encoder, done = autoencoder(values, config.device), 0
    for batch in _in_batches(_accepted_pieces(config, upstream, work), values.batch_size):
        yield encode_pictures(encoder, batch, size, _folders(config)[name_of(size)].table)
        done += len(batch)
        progress(done)


def _alignment_rows(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    values, model = _values(config), config.student.model if config.student else ModelConfig()
    size = int(work.name.split(":")[0].removeprefix("alignment_"))
    encoder, done = vision_encoder(values, config.device), 0
    for batch in _in_batches(_accepted_pieces(config, upstream, work), values.batch_size):
        yield encode_alignment(encoder, batch, model.grid(size), alignment_table(size))
        done += len(batch)
        progress(done)


def encode_alignment(
    encoder: "VisionEncoder", rows: pa.Table, grid: int, table: Table
) -> pa.RecordBatch:
    """Rows of one batch of pictures, seen at the size that makes `grid` patches a side."""
    import torch

    from lightgen_model.autoencoder import to_pixels

    pictures = [resized(data, encoder.image_size(grid)) for data in rows["image"].to_pylist()]
    seen = encoder.encode(to_pixels(torch.from_numpy(np.stack(pictures))))  # (B, N, F)
    columns = {
        "image_id": rows["image_id"].to_pylist(),
        "alignment": [one.tobytes() for one in seen.half().cpu().numpy()],
    }
    return pa.RecordBatch.from_pydict(columns, schema=table.schema)


def _accepted_pieces(
    config: RunConfig, upstream: Mapping[str, Manifest], work: Work
) -> Iterator[pa.Table]:
    images, first = upstream["images"].snapshots["images"], work.first
    accepted = judged(config, upstream)["accepted"].to_numpy()
    columns = ["image_id", "caption_id", "image"]
    for piece in batches(config.root, images, columns, work.sources):
        yield piece.filter(pa.array(accepted[first : first + len(piece)]))
        first += len(piece)


def _in_batches(pieces: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows, `size` at a time."""
    waiting: list[pa.Table] = []
    for piece in pieces:
        waiting.append(piece)
        while sum(map(len, waiting)) >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def encode_pictures(
    encoder: "Autoencoder", rows: pa.Table, size: int, table: Table
) -> pa.RecordBatch:
    """Rows of one batch of pictures."""
    import torch

    from lightgen_model.autoencoder import to_pixels

    pictures = [resized(data, size) for data in rows["image"].to_pylist()]
    # Moments, not a sample: training draws a fresh latent each epoch (lightgen.md 2.3).
    moments = encoder.encode(to_pixels(torch.from_numpy(np.stack(pictures))))  # (B, 2C, h, w)
    flat = moments.half().flatten(1).cpu().numpy()
    column = table.schema.field("moments").type
    if flat.shape[1] != column.list_size:
        raise ValueError(
            f"features.autoencoder gives {tuple(moments.shape[1:])} moments at {size} px, "
            f"{flat.shape[1]} values; student.model.latent_channels and latent_stride make "
            f"{column.list_size}"
        )
    if not np.isfinite(flat).all():
        raise ValueError(f"features.autoencoder gives moments beyond float16 at {size} px")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=column)
    arrays = [rows[name].combine_chunks() for name in ("image_id", "caption_id")]
    return pa.RecordBatch.from_arrays([*arrays, lists], schema=table.schema)


def resized(data: bytes, size: int) -> NDArray[np.uint8]:
    """The middle square of an accepted picture at `size` pixels."""
    picture = decoded(data)
    assert picture is not None, "accepted pictures decode"
    return np.array(square(picture, size))


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    values, table = _values(config), judged(config, upstream)
    used = _used(config, table)
    rejected = [
        why or UNUSED for why, fine in zip(table["why"].to_pylist(), used, strict=True) if not fine
    ]
    snapshots = manifest.snapshots
    return Description(
        stage=STAGE,
        title="Features",
        rows_in=len(table),
        kept=int(used.sum()),
        rejected=len(rejected),
        reasons=count(rejected),
        facts={
            **{name: snapshot.label for name, snapshot in snapshots.items()},
            "content": manifest.content,
            "images": upstream["images"].snapshots["images"].label,
            "verdicts": upstream["verdicts"].snapshots["verdicts"].label,
            "autoencoder": f"{values.autoencoder} ({autoencoder_identity(values)[:16]})",
            "text encoder": f"{values.text_encoder} ({text_encoder_identity(values)[:16]})",
        },
        tables=(_sizes(snapshots), _lengths(config, snapshots["text"])),
        pictures=tuple(
            _reconstructions(config, upstream, snapshots[name_of(size)], size)
            for size in values.image_sizes[-1:]
            if snapshots[name_of(size)].rows
        ),
    )


def _sizes(snapshots: Mapping[str, Snapshot]) -> Grid:
    cells = []
    for name, snapshot in snapshots.items():
        size = sum(shard.size for shard in snapshot.shards)
        numbers = (snapshot.rows, len(snapshot.shards), size // max(1, snapshot.rows))
        cells.append((name, *(f"{n:,}" for n in numbers), f"{size / 2**20:,.1f}"))
    return Grid("Tables", ("table", "rows", "shards", "bytes a row", "MiB"), tuple(cells))


def _lengths(config: RunConfig, snapshot: Snapshot) -> Grid:
    lengths = read(config.root, snapshot, ["length"], check=False)["length"].to_numpy()
    if not len(lengths):
        return Grid("Text lengths", ("tokens", "captions"), ())
    cut = int((lengths >= _values(config).text_length).sum())
    cells = (
        ("fewest", f"{lengths.min():,}"),
        ("mean", f"{lengths.mean():.1f}"),
        ("most", f"{lengths.max():,}"),
        ("captions at the limit", f"{cut:,}"),
    )
    return Grid("Text lengths, in tokens", ("", "tokens"), cells)


def _reconstructions(
    config: RunConfig, upstream: Mapping[str, Manifest], snapshot: Snapshot, size: int
) -> Picture:
    """What the VAE keeps: pictures beside what it makes of their latents."""
    import torch

    from lightgen_model.autoencoder import to_images

    rows = spread(snapshot.rows, SHOWN)
    shown = take(config.root, snapshot, rows, ["image_id", "moments"])
    place = {name: row for row, name in enumerate(judged(config, upstream)["image_id"].to_pylist())}
    drawn = take(
        config.root,
        upstream["images"].snapshots["images"],
        [place[name] for name in shown["image_id"].to_pylist()],
        ["image", "caption"],
    ).to_pylist()
    encoder = autoencoder(_values(config), config.device)
    flat = torch.tensor(shown["moments"].to_pylist())
    model = config.student.model if config.student else ModelConfig()
    cells = size // model.latent_stride
    moments = flat.view(len(rows), -1, cells, cells)
    restored = to_images(encoder.decode(encoder.mean(moments).to(encoder.vae.device))).cpu().numpy()
    left = [Cell(resized(row["image"], size), row["caption"]) for row in drawn]
    right = [Cell(image, row["caption"]) for image, row in zip(restored, drawn, strict=True)]
    sheet = side_by_side(f"Drawn, {size} px", left, "From their latents", right)
    return Picture("What the VAE keeps", sheet)
