"""Bytes a row from the values alone: beside tables on disk, and the limits of the full run."""

import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import RunConfig, load_run
from pipeline.feature_tables import alignment_table
from pipeline.preferences import PREFERENCES
from pipeline.samples import SAMPLES
from pipeline.storage import Means, bytes_per_pair, bytes_per_row
from pipeline.tables import Manifest, Snapshot, TableFolder, read
from pipeline.verdicts import VERDICTS

PAIRS = 2_000_000
TERABYTE = 1e12


def bytes_of(snapshot: Snapshot) -> float:
    return sum(shard.size for shard in snapshot.shards) / snapshot.rows


def mean_length(table: pa.Table, *columns: str) -> float:
    return float(np.mean([len(text or "") for name in columns for text in table[name].to_pylist()]))


def measured(config: RunConfig, upstream: Mapping[str, Manifest]) -> Means:
    """What the rows on disk are like."""
    captions = read(config.root, upstream["captions"].snapshots["captions"])
    images = read(config.root, upstream["images"].snapshots["images"])
    pixels = np.square(images["width"].to_numpy().astype(float)).mean()
    return Means(
        short_share=1,
        short_bytes=mean_length(captions, "caption"),
        place_bytes=mean_length(captions, "place"),
        reason_bytes=mean_length(captions, "reason"),
        bits_per_pixel=8 * mean_length(images, "image") / pixels,
    )


def test_the_data_stages_tables_are_as_large_as_told(debug_run, walk):
    values = {"captions.sources.0.num_captions": 1500, "captions.rows_per_shard": 5000}
    config = debug_run({**values, "images.image_sizes": [128], "images.max_captions": {}})
    upstream = walk(config, "verdicts")
    told = bytes_per_row(config, measured(config, upstream))
    for name, stage in (("captions", "captions"), ("images_128", "images")):
        found = bytes_of(upstream[stage].snapshots[stage])
        assert told[name] == pytest.approx(found, rel=0.05), name


@pytest.mark.parametrize(
    "values", [{}, {"features.latents": "means", "features.text_states": "int8"}]
)
def test_the_features_are_as_large_as_told(debug_run, walk, values):
    config = debug_run({"captions.rows_per_shard": 60, **values})
    upstream = walk(config)
    snapshots = upstream["features"].snapshots
    tokens = read(config.root, snapshots["text"])["length"].to_numpy().mean()
    told = bytes_per_row(config, Means(short_share=1, short_tokens=float(tokens)))
    for name, snapshot in snapshots.items():
        assert told[name] == pytest.approx(bytes_of(snapshot), rel=0.05), name


def answers(rng: np.random.Generator, rows: int, size: int) -> list[str]:
    """Texts that differ, as a model's do."""
    letters = rng.integers(97, 123, (rows, size), np.uint8)
    return [row.tobytes().decode() for row in letters]


def made_up(column: pa.Field, rng: np.random.Generator, sizes: Mapping[str, int], rows: int):
    """A column of values that differ, as long as `sizes` says; ids where it does not."""
    if pa.types.is_large_binary(column.type):
        return [rng.bytes(sizes[column.name]) for _ in range(rows)]
    if pa.types.is_string(column.type):
        return answers(rng, rows, sizes.get(column.name, 16))
    if pa.types.is_boolean(column.type):
        return (rng.random(rows) < 0.5).tolist()
    return rng.permutation(rows).tolist()


@pytest.mark.parametrize(
    ("table", "name", "sizes"),
    [
        (VERDICTS, "verdicts", {"judge": 0, "judge_revision": 0}),
        (SAMPLES, "samples", {"latents": 2048, "image": 3000}),
        (
            PREFERENCES,
            "preferences",
            dict.fromkeys(("winner", "loser"), 2048)
            | {f"{side}_image": 3000 for side in ("winner", "loser")},
        ),
        (alignment_table(64), "alignment_64", {"alignment": 16 * 24 * 2}),
    ],
)
def test_what_models_say_and_draw_is_as_large_as_told(tmp_path, debug_run, table, name, sizes):
    rng, rows = np.random.default_rng(0), 500
    texts = {"caption": 60, "words": 80, "reason": 10, "answer": 310}
    columns = [
        pa.array(made_up(column, rng, {**texts, **sizes}, rows), column.type)
        for column in table.schema
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=table.schema)
    shard = TableFolder(tmp_path, table, "test").write_shard("rows", [batch])
    repa = {"student.model.repa": {"width": 24, "block": 1}, "features.alignment_encoder": "x"}
    means = Means(short_share=1, short_bytes=60, bits_per_pixel=3000 * 8 / 64**2)
    told = bytes_per_row(debug_run(repa), means)[name]
    assert told == pytest.approx(shard.size / rows, rel=0.05)


def test_two_million_pairs_of_the_full_run_fit() -> None:
    pair = bytes_per_pair(load_run("full"))
    assert pair["text"] * PAIRS < 1.0 * TERABYTE
    assert pair["latents"] * PAIRS < 0.35 * TERABYTE


def test_moments_and_bfloat16_take_twice_the_room() -> None:
    plain = {"features.latents": "moments", "features.text_states": "bfloat16"}
    small, large = bytes_per_pair(load_run("full")), bytes_per_pair(load_run("full", plain))
    assert large["latents"] == pytest.approx(2 * small["latents"], rel=0.01)
    assert large["text"] == pytest.approx(2 * small["text"], rel=0.03)


def test_longer_captions_take_no_more_than_the_text_length() -> None:
    config = load_run("full", {"captions.selection.short_share": 0})
    longest = bytes_per_row(config, Means(long_tokens=1000))["text"]
    assert longest == bytes_per_row(config, Means(long_tokens=128))["text"]


def test_every_run_can_be_told_without_a_model_library() -> None:
    program = (
        "import sys\nfrom pipeline.config import load_run\n"
        "from pipeline.storage import bytes_per_row\n"
        "for run in ('tiny', 'models', 'real', 'full'):\n"
        "    assert min(bytes_per_row(load_run(run)).values()) > 0\n"
        "assert not {'torch', 'lance', 'pyarrow', 'diffusers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
