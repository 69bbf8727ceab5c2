"""Near duplicates: captions that repeat an earlier one but for a few letters or words.

In:    captions in the order in which the first one wins, and their signatures.
Out:   for each repeated caption the earlier one that it repeats.
Rerun: a pure function of the captions before and at a row: what is appended changes nothing above.

Captions that share a band are candidates; the likeliest few are compared word for word.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from pipeline.likeness import Likeness
from pipeline.signatures import Bytes, Hashes, Signatures

MOST_IN_BAND = 8  # earlier captions of one band that are remembered
MOST_LIKELY, MOST_COMPARED = 8, 3  # candidates that are estimated, and then compared
MARGIN = 0.15  # an estimate this much below the similarity asked for speaks against a pair


def repeats(
    captions: Sequence[str],
    signatures: Signatures,
    similarity: float,
    *,
    keep_concepts: bool,
    prompts: int = 0,
) -> dict[int, int]:
    """The caption that each repeats, of those before it that repeat none.

    With `prompts`, only the first so many captions are repeated: those that must not be trained on.
    """
    kept, likeness = _Buckets(), Likeness(similarity, keep_concepts)
    found: dict[int, int] = {}
    for row, buckets in _candidates(signatures.bands):
        if row >= prompts:
            likely = _likely(row, kept.most_common(buckets), signatures.minima, similarity)
            same = likeness.first_same([captions[each] for each in likely], captions[row], row)
            if same is not None:
                found[row] = likely[same]
        if row < prompts or (not prompts and row not in found):
            kept.add(row, buckets)
    return found


def _likely(row: int, earlier: list[int], minima: Bytes, similarity: float) -> list[int]:
    """A few of `earlier` whose estimated similarity does not speak against it, the best first."""
    if not earlier:
        return []
    equal = np.count_nonzero(minima[earlier] == minima[row], axis=1).tolist()
    least = (similarity - MARGIN) * minima.shape[1]
    likely = [place for place, number in enumerate(equal) if number >= least]
    likely.sort(key=equal.__getitem__, reverse=True)
    return [earlier[place] for place in likely[:MOST_COMPARED]]


class _Buckets:
    """The captions that stand in each bucket; nearly always one, so more are kept apart."""

    def __init__(self) -> None:
        self.firsts: dict[int, int] = {}
        self.more: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, row: int, buckets: Sequence[int]) -> None:
        for bucket in buckets:
            if bucket not in self.firsts:
                self.firsts[bucket] = row
            elif len(self.more[bucket]) < MOST_IN_BAND - 1:
                self.more[bucket].append(row)

    def most_common(self, buckets: Sequence[int]) -> list[int]:
        rows: list[int] = []
        for bucket in buckets:
            first = self.firsts.get(bucket)
            if first is not None:
                rows.append(first)
                rows += self.more.get(bucket, ())
        if len(rows) < 2:
            return rows
        counts = Counter(rows)
        return sorted(counts, key=counts.__getitem__, reverse=True)[:MOST_LIKELY]


def _candidates(bands: Hashes) -> Iterator[tuple[int, list[int]]]:
    """Rows that share a band with another, in order, each with the buckets that are shared."""
    if not len(bands):
        return
    rows, buckets = [], []
    first = 0
    for band in range(bands.shape[1]):
        order = np.argsort(bands[:, band], kind="stable")
        values = bands[order, band]
        starts = np.concatenate([[True], values[1:] != values[:-1]])
        bucket = np.cumsum(starts) - 1
        shared = np.bincount(bucket)[bucket] > 1
        rows.append(order[shared].astype(np.int32))
        buckets.append(bucket[shared] + first)
        first += len(bands)
    all_rows, all_buckets = np.concatenate(rows), np.concatenate(buckets)
    order = np.argsort(all_rows, kind="stable")
    sorted_rows, sorted_buckets = all_rows[order], all_buckets[order]
    cuts = np.flatnonzero(np.diff(sorted_rows, prepend=-1, append=len(bands)))
    for start, stop in pairwise(cuts.tolist()):
        yield int(sorted_rows[start]), sorted_buckets[start:stop].tolist()
