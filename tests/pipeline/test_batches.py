"""Batches: the order of rows, the join with text, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches import FeatureBatches, TextStates, batch_rows


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
    text = TextStates(text_table({"a": 2, "b": 5, "c": 1}))
    states, lengths = text.take(text.rows(["c", "a"]))
    assert states.shape == (2, 2, 4)
    assert lengths.tolist() == [1, 2]
    assert states[0].tolist() == [[2.0] * 4, [0.0] * 4]


def test_text_of_another_width_than_the_students_is_named() -> None:
    text = TextStates(text_table({"a": 2}, width=4))
    text.require_width(4)
    with pytest.raises(ValueError, match=r"text_width: 8, but .* are 4 wide"):
        text.require_width(8)


def test_a_picture_without_text_is_named_before_training() -> None:
    with pytest.raises(ValueError, match=r"1 captions have no text states, such as \['z'\]"):
        TextStates(text_table({"a": 2})).rows(["a", "z"])


def test_features_come_with_their_own_caption() -> None:
    moments = np.zeros((3, 2 * 2 * 2 * 2), np.float16)
    moments[:, :8] = np.arange(3)[:, None]  # mean = row number
    moments[:, 8:] = -30  # no spread
    features = pa.table(
        {
            "caption_id": ["b", "a", "b"],
            "moments": pa.FixedSizeListArray.from_arrays(pa.array(moments.ravel()), 16),
        }
    )
    batches = FeatureBatches.load(
        features,
        TextStates(text_table({"a": 1, "b": 2})),
        cells=2,
        scale=2.0,
        shift=1.0,
        batch_size=3,
        seed=0,
    )
    latents, states, lengths = batches.take(0, torch.Generator().manual_seed(0))
    rows = ((latents[:, 0, 0, 0] / 2.0) + 1.0).round().long()
    assert latents.shape == (3, 2, 2, 2)
    for row, length, state in zip(rows.tolist(), lengths.tolist(), states, strict=True):
        assert length == (1 if row == 1 else 2)
        assert state[0, 0].item() == (0.0 if row == 1 else 1.0)


def test_no_features_is_an_error() -> None:
    empty = pa.table({"caption_id": pa.array([], pa.string()), "moments": pa.array([], pa.null())})
    with pytest.raises(ValueError, match="every picture was rejected"):
        FeatureBatches.load(
            empty,
            TextStates(text_table({"a": 1})),
            cells=2,
            scale=1.0,
            shift=0.0,
            batch_size=1,
            seed=0,
        )
