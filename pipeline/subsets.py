"""Subsets: which captions a student learns from, where it is not all of them.

In:    `captions` and `text` (the captions that have an accepted picture), and how to choose.
Out:   caption ids. All captions are put in one order, of which the first so many are taken: with
       other values alike, a smaller subset lies within a larger one.
Rerun: the same captions and values give the same order.

No picture is drawn or encoded again: batches leave the other rows out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline import diversity, embeddings
from pipeline.config import RunConfig, SubsetConfig
from pipeline.tables import Manifest, Snapshot, read

Numbers = NDArray[np.int64]


def subset_of(config: RunConfig, upstream: Mapping[str, Manifest]) -> frozenset[str] | None:
    """The captions that the student learns from; None where it is every one.

    ValueError for more captions than there are.
    """
    values = config.student.subset if config.student else None
    if values is None:
        return None
    text = upstream["features"].snapshots["text"]
    captions = upstream["captions"].snapshots["captions"]
    ids, texts = accepted(config.root, text, captions)
    return frozenset(ids[row] for row in chosen(ids, texts, values, config.device).tolist())


def learned_rows(config: RunConfig, upstream: Mapping[str, Manifest]) -> int:
    """Rows of all tables of features whose captions the student learns from."""
    kept = subset_of(config, upstream)
    features = upstream["features"].snapshots
    tables = [table for name, table in features.items() if name.startswith("features")]
    if kept is None:
        return sum(table.rows for table in tables)
    return sum(
        each in kept
        for table in tables
        for each in read(config.root, table, ["caption_id"], check=False)["caption_id"].to_pylist()
    )


def measures(config: RunConfig, upstream: Mapping[str, Manifest]) -> dict[str, float]:
    """Captions and rows of features that the student learns from, and how much of all captions
    they span: the share of clusters reached, the number effectively different (Vendi)."""
    text, captions = upstream["features"].snapshots["text"], upstream["captions"]
    ids, texts = accepted(config.root, text, captions.snapshots["captions"])
    kept = subset_of(config, upstream)
    own = np.array([kept is None or each in kept for each in ids])
    vectors, clusters = _measured(texts, SubsetConfig(share=1), config.device)
    return {
        "captions": float(own.sum()),
        "rows": float(learned_rows(config, upstream)),
        "clusters": diversity.coverage(clusters, own)[0],
        "vendi": diversity.vendi_score(vectors[own]),
    }


@lru_cache(maxsize=2)
def _measured(
    texts: tuple[str, ...], values: SubsetConfig, device: str
) -> tuple[embeddings.Vectors, Numbers]:
    vectors = embeddings.embed(texts, values.embedding, values.seed, device)
    return vectors, diversity.clusters_of(vectors, values.clusters, values.seed)


def chosen(
    ids: Sequence[str], texts: Sequence[str], values: SubsetConfig, device: str = "cpu"
) -> Numbers:
    """Rows of the captions to keep, in their order of choice."""
    number = values.num_captions or max(1, round((values.share or 1.0) * len(ids)))
    if number > len(ids):
        raise ValueError(
            f"student.subset.num_captions: {number}, but {len(ids)} captions have an accepted "
            "picture"
        )
    return ordered(ids, texts, values, device)[:number]


def ordered(
    ids: Sequence[str], texts: Sequence[str], values: SubsetConfig, device: str = "cpu"
) -> Numbers:
    """All rows: by hash; every cluster's first before any second; or cluster after cluster."""
    keys = np.array([_key(values.seed, each) for each in ids], np.uint64)
    if values.choice == "random":
        return np.argsort(keys, kind="stable")
    vectors = embeddings.embed(texts, values.embedding, values.seed, device)
    clusters = diversity.clusters_of(vectors, values.clusters, values.seed)
    if values.choice == "diverse":
        return np.lexsort((keys, _ranks(clusters, keys)))
    turns = np.array([_key(values.seed, str(n)) for n in range(clusters.max() + 1)], np.uint64)
    return np.lexsort((keys, turns[clusters]))


def _ranks(clusters: Numbers, keys: NDArray[np.uint64]) -> Numbers:
    """Which of its cluster's captions each is."""
    by_cluster = np.lexsort((keys, clusters))
    counts = np.bincount(clusters)
    ranks = np.empty(len(clusters), np.int64)
    ranks[by_cluster] = np.arange(len(clusters)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks


def _key(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"subset:{seed}:{text}".encode()).digest()[:8], "big")


@lru_cache(maxsize=2)
def accepted(
    root: str, text: Snapshot, captions: Snapshot
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and texts of the captions that have an accepted picture, in the order of `text`."""
    table = read(root, captions, ["caption_id", "caption"], check=False)
    texts = dict(zip(table["caption_id"].to_pylist(), table["caption"].to_pylist(), strict=True))
    ids = read(root, text, ["caption_id"], check=False)["caption_id"].to_pylist()
    return tuple(ids), tuple(texts[each] for each in ids)
