"""Batches: the order of rows, the join with text, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import FeatureBatches, TableRows, TextStates, batch_rows
from pipeline.draws import row_generators
from pipeline.tables import read


def text_of(lengths: dict[str, int], width: int = 4) -> TextStates:
    return TextStates(TableRows(text_table(lengths, width)))


def text_table(lengths: dict[str, int], width: int = 4) -> pa.Table:
    states = [
        torch.full((length, width), float(n)).bfloat16().view(torch.int16).numpy().tobytes()
        for n, length in enumerate(lengths.values())
    ]
    return pa.table(
        {
            "caption_id": list(lengths),
            "states": pa.array(states, pa.large_binary()),
            "length": pa.array(list(lengths.values()), pa.int32()),
        }
    )


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 3))
def test_an_epoch_shows_each_row_once(num_rows: int, batch_size: int, seed: int) -> None:
    steps = max(1, num_rows // batch_size)
    rows = np.concatenate([batch_rows(num_rows, batch_size, seed, step) for step in range(steps)])
    assert len(rows) == steps * batch_size
    if batch_size <= num_rows:
        assert len(set(rows.tolist())) == len(rows)
    else:
        assert set(rows.tolist()) == set(range(num_rows))


def test_epochs_differ_and_a_step_is_always_the_same() -> None:
    first, second = batch_rows(40, 40, 0, 0), batch_rows(40, 40, 0, 1)
    assert first.tolist() != second.tolist()
    assert first.tolist() == batch_rows(40, 40, 0, 0).tolist()
    assert first.tolist() != batch_rows(40, 40, 1, 0).tolist()


def test_text_is_padded_to_the_longest_of_the_batch() -> None:
    text = text_of({"a": 2, "b": 5, "c": 1})
    states, lengths = text.take(text.rows(["c", "a"]))
    assert states.shape == (2, 2, 4)
    assert lengths.tolist() == [1, 2]
    assert states[0].tolist() == [[2.0] * 4, [0.0] * 4]
    assert text.take(text.rows(["c"]), longest=5)[0].shape == (1, 5, 4)


def test_text_of_another_width_than_the_students_is_named() -> None:
    text = text_of({"a": 2}, width=4)
    text.require_width(4)
    with pytest.raises(ValueError, match=r"text_width: 8, but .* are 4 wide"):
        text.require_width(8)


def test_a_picture_without_text_is_named_before_training() -> None:
    with pytest.raises(ValueError, match=r"1 captions have no text states, such as \['z'\]"):
        text_of({"a": 2}).rows(["a", "z"])


def numbered(num_rows: int, batch_size: int) -> FeatureBatches:
    """Rows whose latents are their number, without spread; every second has the longer caption."""
    moments = np.full((num_rows, 2 * 2 * 2 * 2), -30, np.float16)
    moments[:, :8] = np.arange(num_rows)[:, None]
    features = pa.table(
        {
            "caption_id": ["b" if row % 2 == 0 else "a" for row in range(num_rows)],
            "moments": pa.FixedSizeListArray.from_arrays(pa.array(moments.ravel()), 16),
        }
    )
    return FeatureBatches.load(
        TableRows(features),
        text_of({"a": 1, "b": 2}),
        cells=2,
        scale=2.0,
        shift=1.0,
        batch_size=batch_size,
        seed=0,
    )


def test_features_come_with_their_own_caption() -> None:
    part = range(3)
    batch = numbered(3, 3).take(0, part, row_generators(0, 0, part))
    latents, lengths, states = batch.latents, batch.lengths, batch.states
    rows = ((latents[:, 0, 0, 0] / 2.0) + 1.0).round().long()
    assert latents.shape == (3, 2, 2, 2)
    assert sorted(rows.tolist()) == [0, 1, 2]
    for row, length, state in zip(rows.tolist(), lengths.tolist(), states, strict=True):
        assert length == (1 if row == 1 else 2)
        assert state[0, 0].item() == (0.0 if row == 1 else 1.0)


@pytest.mark.parametrize("num_parts", [2, 4])
def test_parts_are_disjoint_and_make_the_whole_batch(num_parts: int) -> None:
    batches, size = numbered(21, 8), 8 // num_parts
    for step in (0, 1, 2, 3):
        whole = batches.take(step, range(8), row_generators(7, step, range(8)))
        parts = [range(n * size, (n + 1) * size) for n in range(num_parts)]
        taken = [batches.take(step, part, row_generators(7, step, part)) for part in parts]
        for name in ("latents", "states", "lengths"):
            together = torch.cat([getattr(part, name) for part in taken])
            assert torch.equal(getattr(whole, name), together)
        assert len(set(whole[0][:, 0, 0, 0].tolist())) == 8


def test_a_table_that_is_not_held_gives_the_same_rows(debug_run, walk) -> None:
    config = debug_run()
    snapshot = walk(config)["features"].snapshots["features_64"]
    columns, rows = ["caption_id", "moments"], np.array([5, 0, 3])
    held, lazy = (TableRows.open(config.root, snapshot, columns, gib) for gib in (1, 0))
    assert held.held is not None
    assert lazy.held is None
    assert held.take(rows).equals(lazy.take(rows))
    assert held.take(rows).equals(read(config.root, snapshot, columns).take(pa.array(rows)))
    assert held.whole("caption_id").to_pylist() == lazy.whole("caption_id").to_pylist()


def test_a_position_tells_of_the_table_the_order_and_the_place(debug_run, walk) -> None:
    config = debug_run()
    snapshots = walk(config)["features"].snapshots
    table = TableRows.open(config.root, snapshots["features_64"], ["caption_id", "moments"], 1)
    columns = ["caption_id", "states", "length"]
    text = TextStates(TableRows.open(config.root, snapshots["text"], columns, 1))
    values = {"cells": 8, "scale": 1.0, "shift": 0.0, "batch_size": 10, "seed": 3}
    batches = FeatureBatches.load(table, text, **values)  # type: ignore[arg-type]
    assert batches.position(batches.num_rows // 10 + 2) == {
        "table": snapshots["features_64"].table,
        "version": snapshots["features_64"].version,
        "content": snapshots["features_64"].content,
        "seed": 3,
        "batch_size": 10,
        "epoch_and_step": [1, 2],
    }


def test_no_features_is_an_error() -> None:
    empty = pa.table({"caption_id": pa.array([], pa.string()), "moments": pa.array([], pa.null())})
    values = {"cells": 2, "scale": 1.0, "shift": 0.0, "batch_size": 1, "seed": 0}
    with pytest.raises(ValueError, match="every picture was rejected"):
        FeatureBatches.load(TableRows(empty), text_of({"a": 1}), **values)  # type: ignore[arg-type]
