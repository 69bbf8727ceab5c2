"""Diversity: how much of what could be said the captions say, and a choice that says more.

In:    vectors of captions (see `embeddings`).
Out:   measures of a set, and numbers of rows that cover all clusters as evenly as they can.
Rerun: the same vectors and seed give the same numbers.

Vendi score: Friedman and Dieng, arXiv 2210.02410. Clusters: MiniBatchKMeans of scikit-learn.

Shapes: N captions, D dimensions, K clusters.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.embeddings import Vectors

VERSION = 2  # counted up when other rows are chosen of the same

Numbers = NDArray[np.int64]


def vendi_score(vectors: Vectors) -> float:
    """The number of captions that are effectively different, 1 to min(N, D).

    The exponential of the entropy of K / n's eigenvalues; those of X X^T and X^T X are the same, so
    the smaller one is taken.
    """
    if not len(vectors):
        return 0.0
    wide = vectors.astype(np.float64)
    gram = wide.T @ wide if wide.shape[1] < len(wide) else wide @ wide.T
    values = np.linalg.eigvalsh(gram)
    values = values[values > 1e-12] / max(values[values > 1e-12].sum(), 1e-12)
    return float(np.exp(-(values * np.log(values)).sum()))


def clusters_of(vectors: Vectors, clusters: int, seed: int) -> Numbers:
    """The cluster of each caption (N,)."""
    from sklearn.cluster import MiniBatchKMeans

    number = min(clusters, len(vectors))
    means = MiniBatchKMeans(number, random_state=seed, batch_size=4096, n_init=1, max_iter=30)
    found: Numbers = means.fit_predict(vectors).astype(np.int64)
    return found


def coverage(clusters: Numbers, kept: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the clusters that the kept rows reach, and how evenly: 1 is the same in each."""
    counts = np.bincount(clusters[kept], minlength=int(clusters.max(initial=-1)) + 1)
    reached = np.bincount(clusters, minlength=len(counts)) > 0
    if not counts.sum():
        return 0.0, 0.0
    shares = counts[counts > 0] / counts.sum()
    effective = np.exp(-(shares * np.log(shares)).sum())
    return float((counts > 0).sum() / reached.sum()), float(effective / reached.sum())


def balanced(
    clusters: Numbers, order: NDArray[np.uint64], number: int, heights: Numbers | None = None
) -> Numbers:
    """At most `number` rows, all clusters filled to one height; within one by `order`, a hash.

    `heights`: how full each cluster is already.
    """
    ranks = np.empty(len(clusters), np.int64)
    by_cluster = np.lexsort((order, clusters))
    counts = np.bincount(clusters)
    firsts = np.cumsum(counts) - counts
    ranks[by_cluster] = np.arange(len(clusters)) - np.repeat(firsts, counts)
    if heights is not None:
        ranks += heights[clusters]
    # Every cluster's first, then every cluster's second, ...: the ties of the last round by hash.
    return np.sort(np.lexsort((order, ranks))[:number])


def select(
    vectors: Vectors,
    long: NDArray[np.bool_],
    caption_ids: Sequence[str],
    *,
    number: int,
    short_share: float | None,
    clusters: int,
    seed: int,
) -> Numbers:
    """The rows to keep, `short_share` of them short; where one kind lacks, the other fills up.

    The kind with less choice is taken first, the other one fills what that left low.
    """
    found = clusters_of(vectors, clusters, seed)
    digests = [hashlib.sha256(f"{seed}:{each}".encode()).digest()[:8] for each in caption_ids]
    keys = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    if short_share is None:
        return balanced(found, keys, number)
    shorts, longs = np.flatnonzero(~long), np.flatnonzero(long)
    wanted = min(len(shorts), round(number * short_share))
    wanted = max(wanted, min(len(shorts), number - len(longs)))
    kinds = sorted(
        ((shorts, wanted), (longs, number - wanted)), key=lambda kind: len(kind[0]) - kind[1]
    )
    chosen, heights = np.empty(0, np.int64), np.zeros(clusters, np.int64)
    for rows, some in kinds:
        new = rows[balanced(found[rows], keys[rows], some, heights)]
        heights += np.bincount(found[new], minlength=clusters)
        chosen = np.concatenate([chosen, new])
    return np.sort(chosen)
