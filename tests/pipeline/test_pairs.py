"""Pairs: which are learned from, in which shares, and which are refused before training."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline import preferences
from pipeline.batches import TableRows, TextStates
from pipeline.pairs import COLUMNS, Pairs, check_latents, groups_of
from pipeline.tables import Snapshot, TableFolder, read
from tests.pipeline.test_aligning_step import LATENTS, pair_table, pairs


def test_only_kept_pairs_are_learned_from() -> None:
    winners, losers = pairs().take(np.arange(5))
    assert winners.shape == losers.shape == (5, *LATENTS)
    assert pairs().kept.tolist() == [0, 1, 2, 3, 4]
    first = np.frombuffer(pair_table()["loser"][0].as_py(), np.float16)
    assert losers[0].flatten().tolist() == first.tolist()
    with pytest.raises(ValueError, match="no preference pairs to learn from: all 6 rows were"):
        pairs(pair_table(keep=False))


BAD = np.full(LATENTS, np.nan, np.float16).tobytes()


@pytest.mark.parametrize(
    ("side", "value", "sentence"),
    [
        ("winner", None, "pair 1 has no winner"),
        ("loser", None, "pair 1 has no loser"),
        ("loser", "the winner's", "pair 1 has the same picture on both sides"),
        ("loser", b"\0" * 512, r"pair 1 has a loser of 256 values, not 1024 \(16 x 8 x 8\)"),
        ("winner", BAD, "pair 1 has a winner that is not finite"),
    ],
)
def test_a_pair_that_nothing_can_be_learned_from_is_named(
    side: str, value: bytes | str | None, sentence: str
) -> None:
    rows = pair_table().to_pylist()
    rows[1][side] = rows[1]["winner"] if value == "the winner's" else value
    with pytest.raises(ValueError, match=f"1 of 5 pairs cannot be learned from: {sentence}"):
        pairs(pa.Table.from_pylist(rows, schema=pair_table().schema))


def test_balance_shows_each_group_as_often_and_all_of_a_large_one_in_time() -> None:
    rows = pair_table().to_pylist()
    for number, row in enumerate(rows):
        row["kind"] = "seldom" if number == 0 else "often"
    table = pa.Table.from_pylist(rows, schema=pair_table().schema)
    batches = [pairs(table, balance="kind").batch(4, 0, step) for step in range(40)]
    shown = np.concatenate(batches)
    assert 0.3 < (shown == 0).mean() < 0.7  # one of five pairs
    assert set(shown.tolist()) == {0, 1, 2, 3, 4}
    again = pairs(table, balance="kind").batch(4, 0, 7)
    assert again.tolist() == batches[7].tolist()


def test_tasks_are_those_of_the_captions() -> None:
    assert [len(group) for group in pairs(balance="task").groups] == [4, 1]  # colors, counting
    assert [group.tolist() for group in groups_of(["b", "a", "b"])] == [[1], [0, 2]]


@pytest.fixture
def made(debug_run, walk, train, make):
    """A run and its real preferences."""
    config = debug_run()
    upstream = walk(config)
    upstream["student"] = train(config, upstream)
    manifest, _ = make(preferences, config, upstream)
    return config, upstream, manifest.snapshots["preferences"]


def open_pairs(config, upstream, snapshot: Snapshot) -> Pairs:
    text = TableRows(read(config.root, upstream["features"].snapshots["text"]))
    source = TableRows.open(config.root, snapshot, COLUMNS, memory_gib=1)
    return Pairs.load(source, TextStates(text), shape=(16, 8, 8))


def test_latents_of_another_vae_are_found_though_they_have_the_right_size(made) -> None:
    config, upstream, snapshot = made
    check_latents(config, snapshot, open_pairs(config, upstream, snapshot))
    rows = read(config.root, snapshot).to_pylist()
    random = np.random.default_rng(0)
    for row in rows:
        if row["keep"]:
            row["winner"] = random.normal(size=1024).astype(np.float16).tobytes()
    folder = TableFolder(config.root, preferences.PREFERENCES, "of another VAE")
    shard = folder.write_shard("one", [pa.Table.from_pylist(rows, preferences.PREFERENCES.schema)])
    other = folder.commit([shard], "other")
    with pytest.raises(ValueError, match="reads from its winner image: they are of another VAE"):
        check_latents(config, other, open_pairs(config, upstream, other))
