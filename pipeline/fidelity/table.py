"""Fidelity in a run: FID, CMMD and CLIP score of every checkpoint's pictures, beside its scores.

In:    the shards of `scores` that hold one checkpoint's pictures for one evaluator.
Out:   `measures`, a row a number with what it was measured with.
Rerun: a new checkpoint is measured alone; features of the reference are kept under
       <root>/fidelity, by fingerprint.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
from PIL import Image

from pipeline.config import FidelityConfig
from pipeline.decoding import square
from pipeline.description import Grid
from pipeline.encoders import weights_identity
from pipeline.fidelity.measuring import measured, weights_of
from pipeline.roots import near, root_of
from pipeline.tables import Shard, Table, TableFolder, digest

NAME = "measures"
PLACE = "evaluation.fidelity"
AT_ONCE = 64  # pictures decoded at once
MEASURES = Table(
    name=NAME,
    version=1,
    schema=pa.schema(
        [
            pa.field("evaluator", pa.string(), False),  # whose prompts were drawn
            pa.field("checkpoint", pa.string(), False),
            pa.field("measure", pa.string(), False),  # FID | CMMD | CLIP score
            pa.field("value", pa.float64(), False),
            pa.field("pictures", pa.int32(), False),
            pa.field("reference_pictures", pa.int32(), False),  # 0: none
            pa.field("preparation", pa.string(), False),
            pa.field("resize", pa.string(), False),
            pa.field("extractor", pa.string(), False),
            pa.field("fingerprint", pa.string(), False),
            pa.field("reference_fingerprint", pa.string(), False),
            pa.field("cautions", pa.string(), False),  # "" for none
        ]
    ),
)


@dataclass(frozen=True)
class Drawn:
    """The pictures of some shards of `scores`."""

    folder: TableFolder
    shards: tuple[Shard, ...]
    size: int | None

    def fingerprint(self) -> str:
        return digest([[shard.sha256 for shard in self.shards], self.size])

    @property
    def preparation(self) -> str:
        return f"middle square at {self.size} px" if self.size else "as it is"

    def images(self) -> Iterator[list[Image.Image]]:
        for shard in self.shards:
            column = self.folder.read_shard(shard)["image"]
            for first in range(0, len(column), AT_ONCE):
                files = column.slice(first, AT_ONCE).to_pylist()
                images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
                yield [square(image, self.size) if self.size else image for image in images]

    def captions(self) -> list[str]:
        return [
            prompt
            for shard in self.shards
            for prompt in self.folder.read_shard(shard)["prompt"].to_pylist()
        ]


def folder(root: str, values: FidelityConfig) -> TableFolder:
    """Named by the weights' content and the reference's files, not by where they lie."""
    reference = Path(values.reference) if values.reference else None
    facts = {
        "resize": values.resize,
        "size": values.size,
        "reference": files_of(reference) if reference else [],
        "inception": _file(values.inception),
        **{place: weights_identity(name, None) for place, name in weights_of(values)},
    }
    return TableFolder(root, MEASURES, facts)


def files_of(reference: Path) -> list[list[object]]:
    """Names and sizes: sums of all files of a large reference would cost a look at the table."""
    return [
        [path.relative_to(reference).as_posix(), path.stat().st_size]
        for path in sorted(reference.rglob("*"))
        if path.is_file()
    ]


def _file(path: str | None) -> list[object]:
    return [Path(path).name, Path(path).stat().st_size] if path else []


def rows(
    root: str,
    values: FidelityConfig,
    scores: TableFolder,
    shards: Sequence[Shard],
    keys: Mapping[str, str],
    device: str,
) -> pa.RecordBatch:
    """`keys`: the evaluator and checkpoint of the shards."""
    drawn = Drawn(scores, tuple(shards), values.size)
    found = [
        {**keys, **asdict(measure)}
        for measure in measured(drawn, values, near(root_of(root)) / "fidelity", device)
    ]
    return pa.RecordBatch.from_pylist(found, schema=MEASURES.schema)


def grid(table: pa.Table) -> Grid:
    """A row a measure and evaluator, a column a checkpoint; all that a number needs beside it."""
    names = table["checkpoint"].unique().to_pylist()
    lines: dict[tuple[str, ...], dict[str, float]] = {}
    for row in table.to_pylist():
        against = f"{row['reference_pictures']:,}" if row["reference_pictures"] else "-"
        told = (f"{row['pictures']:,}", against, row["resize"], row["extractor"], row["cautions"])
        key = (row["evaluator"], row["measure"], *told)
        lines.setdefault(key, {})[row["checkpoint"]] = row["value"]
    header = ("prompts of", "measure", *names, "pictures", "reference", "resize", "by", "caution")
    cells = tuple(
        (*key[:2], *(f"{values[n]:.3f}" if n in values else "-" for n in names), *key[2:])
        for key, values in lines.items()
    )
    return Grid("Distance from the reference, and from the prompts", header, cells)


def missing(values: FidelityConfig) -> list[str]:
    """What this machine lacks, one sentence each."""
    from pipeline.preflight import missing_weights  # which asks this in turn

    lacking = []
    if values.reference and not Path(values.reference).is_dir():
        lacking.append(f"{PLACE}.reference: the folder {values.reference} is not there")
    if values.inception and not Path(values.inception).is_file():
        lacking.append(f"{PLACE}.inception: {values.inception} is not there")
    if values.inception and find_spec("torch_fidelity") is None:
        lacking.append(f"{PLACE}.inception: needs torch-fidelity; pip install -e '.[fidelity]'")
    if weights_of(values) and find_spec("open_clip") is None:
        lacking.append(f"{PLACE}: needs open_clip; pip install -e '.[clip]'")
    told = [missing_weights(f"{PLACE}.{place}", name, None) for place, name in weights_of(values)]
    return lacking + [sentence for sentence in told if sentence]
