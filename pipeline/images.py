"""Images: what the teacher drew for each caption.

In:    `captions` that were kept.
Out:   `images`, one row for every (caption, size, seed), also where nothing could be drawn.
Rerun: draws only what is new: a shard is named by the captions, sizes and seeds that it holds.

A picture's seed comes from its caption and its number, so no picture depends on its batch.
"""

import gc
import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline import teachers
from pipeline.captions import count, spread
from pipeline.config import ImagesConfig, PictureFormat, RunConfig, TeacherConfig
from pipeline.description import Description, Grid, Picture
from pipeline.pictures import Cell, contact_sheet
from pipeline.tables import (
    NO_COMPRESSION,
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    identifier,
    read,
    take,
)
from pipeline.teachers import Drawing, Teacher

STAGE = "images"
DRAWINGS_PER_CALL = 64
SHOWN = 24
WRONG_SIZE = "drawn at another size"
PNG = PictureFormat()
# The columns that say what drew a picture.
MAKER = ("teacher", "revision", "licence", "pipeline", "precision", "num_steps", "guidance")

IMAGES = Table(
    name="images",
    version=2,
    schema=pa.schema(
        [
            pa.field("image_id", pa.string(), False),
            pa.field("caption_id", pa.string(), False),
            pa.field("caption", pa.string(), False),
            pa.field("seed", pa.int64(), False),
            pa.field("image", pa.large_binary(), True, NO_COMPRESSION),  # a file; null: not drawn
            pa.field("width", pa.int32(), False),  # the size asked for where nothing was drawn
            pa.field("height", pa.int32(), False),
            pa.field("teacher", pa.string(), False),
            pa.field("revision", pa.string(), False),
            pa.field("licence", pa.string(), False),
            pa.field("num_steps", pa.int32(), False),
            pa.field("guidance", pa.float32(), False),
            pa.field("pipeline", pa.string(), False),  # the class that drew; "" where none did
            pa.field("precision", pa.string(), False),  # of its weights
            pa.field("reason", pa.string(), False),  # "" when drawn
        ]
    ),
)


class Order(NamedTuple):
    """One picture to draw."""

    caption_id: str
    caption: str
    seed: int


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    snapshot = _folder(config).find(_inputs(config, upstream))
    return Manifest.of(STAGE, {STAGE: snapshot}) if snapshot else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (_folder(config).place,)


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    images, folder = _values(config), _folder(config)
    works = []
    for size in images.image_sizes:
        left = images.max_captions.get(size)
        for shard in upstream["captions"].snapshots["captions"].shards:
            captions = _kept(config, upstream, shard.name)[:left]
            left = None if left is None else left - len(captions)
            orders = orders_of(captions, images)
            for first in range(0, len(orders), images.rows_per_shard):
                chosen = orders[first : first + images.rows_per_shard]
                name = shard_name(folder, chosen, size)
                works.append(Work(name, (shard.name, str(size)), first, len(chosen)))
    return works


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """The shards of a piece of work if their files are there and right."""
    shard = _folder(config).whole_shard(work.name)
    return [shard] if shard else None


def side_by_side(config: RunConfig) -> bool:
    """Whether the teacher may draw in several threads."""
    return teachers.side_by_side(_values(config).teacher)


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    images, folder = _values(config), _folder(config)
    size = int(work.sources[1])
    orders = orders_of(_kept(config, upstream, work.sources[0]), images)
    orders = orders[work.first : work.first + work.rows]
    assert shard_name(folder, orders, size) == work.name, "the plan is of other captions"

    def batches() -> Iterator[pa.RecordBatch]:
        teacher = _teacher(images.teacher)
        for first in range(0, len(orders), DRAWINGS_PER_CALL):
            chosen = orders[first : first + DRAWINGS_PER_CALL]
            yield draw_images(teacher, chosen, size, folder.fingerprint, images.picture)
            progress(first + len(chosen))

    return [folder.write_shard(work.name, batches())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    snapshot = _folder(config).commit(shards, _inputs(config, upstream))
    _release_teacher()
    return Manifest.of(STAGE, {STAGE: snapshot})


def _values(config: RunConfig) -> ImagesConfig:
    assert config.images is not None
    return config.images


def _folder(config: RunConfig) -> TableFolder:
    """Sizes and numbers of seeds choose rows and do not change them: they are inputs."""
    values = _values(config).model_dump(mode="json", include={"seed", "picture"})
    identity = teachers.identity(_values(config).teacher)
    return TableFolder(config.root, IMAGES, {**values, "teacher": identity})


def _inputs(config: RunConfig, upstream: Mapping[str, Manifest]) -> str:
    chosen = {"image_sizes", "max_captions", "seeds_per_caption"}
    if _values(config).rows_per_shard != ImagesConfig.model_fields["rows_per_shard"].default:
        chosen.add("rows_per_shard")  # versions from before it was a value keep their names
    return identifier(
        upstream["captions"].content, _values(config).model_dump(mode="json", include=chosen)
    )


def _kept(config: RunConfig, upstream: Mapping[str, Manifest], shard: str) -> list[tuple[str, str]]:
    return list(_captions(config.root, upstream["captions"].snapshots["captions"], shard))


@lru_cache(maxsize=4)  # of shards: all captions together would fill the memory
def _captions(root: str, snapshot: Snapshot, shard: str) -> tuple[tuple[str, str], ...]:
    table = read(root, snapshot, ["caption_id", "caption", "keep"], [shard])
    kept = table.filter(table["keep"])
    return tuple(zip(kept["caption_id"].to_pylist(), kept["caption"].to_pylist(), strict=True))


@cache
def _teacher(config: TeacherConfig) -> Teacher:
    """One a process: its weights are large."""
    return teachers.build(config)


def _release_teacher() -> None:
    """The same process encodes and trains next, and the teacher would keep the device's memory."""
    if _teacher.cache_info().currsize:
        _teacher.cache_clear()
        gc.collect()  # a pipeline's parts know each other
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()  # nothing where no device was used


# --- rows ---------------------------------------------------------------------------------------


def orders_of(captions: Sequence[tuple[str, str]], config: ImagesConfig) -> list[Order]:
    return [
        Order(caption_id, caption, seed_of(caption_id, number, config.seed))
        for caption_id, caption in captions
        for number in range(config.seeds_per_caption)
    ]


def seed_of(*values: object) -> int:
    """A seed of 63 bits that depends on these values and on nothing else."""
    text = ":".join(map(str, values))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shard_name(folder: TableFolder, orders: Sequence[Order], size: int) -> str:
    return identifier(folder.fingerprint, size, orders)


def draw_images(
    teacher: Teacher,
    orders: Sequence[Order],
    size: int,
    maker: str,
    picture: PictureFormat = PNG,
) -> pa.RecordBatch:
    """Rows of one call of the teacher; what it could not draw is a row with its reason."""
    drawings = [
        _checked(drawing, size)
        for drawing in teacher.draw(
            [order.caption for order in orders], [order.seed for order in orders], size
        )
    ]
    facts, number = teacher.facts, len(orders)
    columns = {
        "image_id": [identifier(maker, size, o.caption_id, o.seed) for o in orders],
        "caption_id": [order.caption_id for order in orders],
        "caption": [order.caption for order in orders],
        "seed": [order.seed for order in orders],
        "image": [encoded(d.image, picture) if d.image is not None else None for d in drawings],
        "width": [size] * number,
        "height": [size] * number,
        "teacher": [facts.name] * number,
        "revision": [facts.revision] * number,
        "licence": [facts.licence] * number,
        "num_steps": [facts.num_steps] * number,
        "guidance": [facts.guidance] * number,
        "pipeline": [facts.pipeline] * number,
        "precision": [facts.precision] * number,
        "reason": [drawing.reason for drawing in drawings],
    }
    return pa.RecordBatch.from_pydict(columns, schema=IMAGES.schema)


def _checked(drawing: Drawing, size: int) -> Drawing:
    if drawing.image is not None and drawing.image.size != (size, size):
        return Drawing(None, WRONG_SIZE)
    return drawing


def png(image: Image.Image) -> bytes:
    return encoded(image)


def encoded(image: Image.Image, picture: PictureFormat = PNG) -> bytes:
    """A file of the picture alone: no metadata of whatever it came from."""
    out, plain = io.BytesIO(), image.convert("RGB")
    plain.info = {}
    match picture.format:
        case "webp":
            plain.save(out, "WEBP", quality=picture.quality, method=4)
        case "jpeg":  # whole colour resolution: thin coloured lines are what captions ask for
            plain.save(out, "JPEG", quality=picture.quality, subsampling=0)
        case _:
            plain.save(out, "PNG", optimize=False, compress_level=1)
    return out.getvalue()


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshot = manifest.snapshots[STAGE]
    table = read(config.root, snapshot, ["caption_id", "width", "reason"], check=False)
    whole = pc.equal(table["reason"], "").to_numpy()
    drawn = np.flatnonzero(whole)
    rejected = table["reason"].filter(pa.array(~whole)).to_pylist()
    return Description(
        stage=STAGE,
        title="Images",
        rows_in=len(table),
        kept=len(drawn),
        rejected=len(rejected),
        reasons=count(rejected),
        facts=_facts(config, upstream, snapshot),
        tables=(_by_size(table),),
        pictures=(_sheet(config, snapshot, drawn),),
    )


def _facts(
    config: RunConfig, upstream: Mapping[str, Manifest], snapshot: Snapshot
) -> dict[str, str]:
    facts = {
        "table": snapshot.label,
        "content": snapshot.content,
        "captions": upstream["captions"].snapshots["captions"].label,
    }
    for name in MAKER:
        column = read(config.root, snapshot, [name], check=False)[name]  # one at a time is small
        given = [value for value in column.unique().to_pylist() if value != ""]
        if given:
            facts[name.replace("_", " ")] = ", ".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in given
            )
    return facts


def _by_size(table: pa.Table) -> Grid:
    cells = []
    for size in table["width"].unique().to_pylist():
        own = table.filter(pc.equal(table["width"], size))
        captions = len(own["caption_id"].unique())
        missing = pc.sum(pc.not_equal(own["reason"], "")).as_py() or 0
        numbers = (captions, len(own) - missing, missing)
        cells.append((f"{size} px", *(f"{n:,}" for n in numbers)))
    return Grid("By size", ("size", "captions", "drawn", "not drawn"), tuple(cells))


def _sheet(config: RunConfig, snapshot: Snapshot, drawn: NDArray[np.int64]) -> Picture:
    rows = [int(drawn[index]) for index in spread(len(drawn), SHOWN)]
    shown = take(config.root, snapshot, rows, ["image", "caption"]).to_pylist()
    cells = [Cell(row["image"], row["caption"]) for row in shown]
    return Picture("What the teacher drew", contact_sheet(cells, 6))
