"""Captions on their way to the table: by length or as they come, in order either way."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from lightgen_model.text_encoder import TextEncoder
from pipeline import encoded_text
from pipeline.encoded_text import Packed, rows_of, token_batches, unpack, write_text
from pipeline.encoders import batch_size
from pipeline.feature_tables import TEXT, folders_of, text_columns, text_table
from pipeline.shapes.grammar import sample_captions

FOLDER = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes" / "text_encoder"
CAPTIONS = [(f"id {row}", text) for row, text in enumerate(sample_captions(50, 3))]
LONGEST = {"features.text_padding": "longest", "features.batch_size": 8}


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(FOLDER, length=20)


def written(config, encoder, captions=CAPTIONS) -> pa.Table:
    folder = folders_of(config)["text"]
    (shard,) = write_text(
        encoder, [("shard", captions)], config.features, folder, lambda rows: None
    )
    return folder.read_shard(shard)


def states_of(table: pa.Table) -> list[torch.Tensor]:
    names = [name for name in ("states", "scales") if name in table.column_names]
    lengths = table["length"].to_pylist()
    return [
        unpack(row, length).float()
        for row, length in zip(table.select(names).to_pylist(), lengths, strict=True)
    ]


@pytest.mark.parametrize("states", ["bfloat16", "int8"])
def test_rows_are_in_order_whatever_shares_a_batch(debug_run, encoder, states, monkeypatch) -> None:
    monkeypatch.setattr(encoded_text, "SORTED_TOGETHER", 20)
    config = debug_run({**LONGEST, "features.text_states": states})
    table = written(config, encoder)
    assert table["caption_id"].to_pylist() == [name for name, _ in CAPTIONS]
    for (_, caption), found in zip(CAPTIONS, states_of(table), strict=True):
        alone, length = encoder.encode([caption])
        assert len(found) == length[0]
        off = (found - alone[0, : len(found)]).square().mean().sqrt()
        assert off < (0.003 if states == "bfloat16" else 0.01) * alone.square().sum().sqrt()


def test_a_rerun_gives_the_same_bytes(debug_run, encoder, tmp_path) -> None:
    tables = [
        written(debug_run(LONGEST, root=tmp_path / name), encoder) for name in ("once", "again")
    ]
    assert tables[0].equals(tables[1])


def test_several_shards_are_as_each_alone(debug_run, encoder, tmp_path) -> None:
    config, seen = debug_run(LONGEST), []
    folder = folders_of(config)["text"]
    parts = [(f"part {first}", CAPTIONS[first : first + 14]) for first in range(0, 50, 14)]
    shards = write_text(encoder, parts, config.features, folder, seen.append)
    assert [shard.name for shard in shards] == [name for name, _ in parts]
    assert seen == [8, 14, 22, 28, 36, 42, 50]
    for number, (_, captions) in enumerate(parts):
        alone = written(debug_run(LONGEST, root=tmp_path / str(number)), encoder, captions)
        assert folder.read_shard(shards[number]).equals(alone)


def test_sorting_by_length_leaves_little_padding(debug_run) -> None:
    """Of captions as long as real ones, 30 % short, cut at 128 tokens."""
    rng = np.random.default_rng(0)
    long, short = rng.normal(84, 30, 1400).clip(20, 128), rng.integers(5, 20, 600)
    lengths = rng.permutation(np.concatenate([long, short])).astype(int)
    counting = SimpleNamespace(tokens=lambda texts: [[0] * len(text) for text in texts], length=128)
    captions = [(str(row), "x" * length) for row, length in enumerate(lengths)]
    values = debug_run({**LONGEST, "features.batch_size": 64}).features
    batches = list(token_batches(counting, captions, values))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(2000))
    padded = sum(len(batch.rows) * batch.length for batch in batches)
    assert lengths.sum() / padded > 0.9
    assert lengths.sum() / (2000 * 128) < 0.55  # at full length


def test_at_full_length_captions_stay_as_they_come(debug_run, encoder) -> None:
    batches = list(token_batches(encoder, CAPTIONS, debug_run().features))
    assert [row for batch in batches for row in batch.rows] == list(range(50))
    assert {batch.length for batch in batches} == {20}


def test_out_of_memory_halves_the_batch_and_loses_no_caption(debug_run, encoder, monkeypatch):
    config = debug_run({**LONGEST, "features.text_length": 20, "features.workers": 3})
    encode, sizes = encoder.encode_tokens, []

    def crowded(tokens, length):
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(tokens, length)

    monkeypatch.setattr(encoder, "encode_tokens", crowded)
    table = written(config, encoder)
    assert table["caption_id"].to_pylist() == [name for name, _ in CAPTIONS]
    assert max(sizes[2:]) == batch_size(config.features, "text").value == 2


def test_states_that_are_no_numbers_are_named() -> None:
    states = torch.zeros(2, 3, 4, dtype=torch.int16)
    columns = {"states": states, "finite": torch.tensor([True, False])}
    packed = Packed([0, 1], [3, 3], columns)
    with pytest.raises(ValueError, match=r"states of caption id 1 .* are not finite"):
        dict(rows_of(packed, CAPTIONS))


def test_bfloat16_and_int8_come_back_as_they_were_packed() -> None:
    states = torch.randn(1, 5, 128, generator=torch.Generator().manual_seed(0))
    for table in (TEXT, text_table_of("int8")):
        packed = {n: x[0].numpy().tobytes() for n, x in encoded_text.pack(states, table).items()}
        packed = {name: packed[name] for name in packed if name in ("states", "scales")}
        found = unpack(packed, 5).float()
        assert found.shape == (5, 128)
        assert np.allclose(found, states[0], atol=0.02)


def text_table_of(kind: str):
    from pipeline.config import load_run

    return text_table(load_run("tiny", {"features.text_states": kind}).features)


def test_readers_ask_for_scales_where_there_are_some(debug_run) -> None:
    plain, small = debug_run().features, debug_run({"features.text_states": "int8"}).features
    assert text_columns(plain) == ["caption_id", "states", "length"]
    assert text_columns(small) == ["caption_id", "states", "scales", "length"]
