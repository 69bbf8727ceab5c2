"""Near duplicates: captions that repeat an earlier one but for a few letters or words.

In:    captions in the order in which the first one wins, and their signatures.
Out:   for each repeated caption the earlier one that it repeats.
Rerun: a pure function of the captions before and at a row: what is appended changes nothing above.

Captions that share a band are paired; the likeliest pairs are compared word for word.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.likeness import Likeness
from pipeline.signatures import Bytes, Hashes, Signatures

MOST_IN_BAND = 16  # the first captions of a band; all later ones are paired with these
MOST_COMPARED = 3  # pairs of one caption
MARGIN = 0.15  # an estimate this much below the similarity asked for speaks against a pair
PAIRS_AT_ONCE = 2**15  # whose minima are in memory
ROW_BITS, EQUAL_BITS = 28, 7

Rows = NDArray[np.int64]


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
    likeness = Likeness(similarity, keep_concepts)
    found: dict[int, int] = {}
    for row, earlier in _likely(signatures, similarity - MARGIN, prompts):
        likely = [each for each in earlier if each not in found][:MOST_COMPARED]
        same = likeness.first_same([captions[each] for each in likely], captions[row], row)
        if same is not None:
            found[row] = likely[same]
    return found


def _likely(signatures: Signatures, least: float, prompts: int) -> Iterator[tuple[int, list[int]]]:
    """Rows in order, each with earlier ones that it may repeat, the likeliest first."""
    assert len(signatures.bands) < 2**ROW_BITS, "a row's number is part of a key of 63 bits"
    keys = [np.empty(0, np.int64)]
    for band in signatures.bands.T:
        for earlier, later in _pairs(band, prompts):
            equal = _equal(signatures.minima, earlier, later)
            close = equal >= least * signatures.minima.shape[1]
            order = (later << EQUAL_BITS) - equal
            keys.append((order[close] << ROW_BITS) + earlier[close])
    pairs = np.unique(np.concatenate(keys))  # one that shares several bands is there as often
    earlier = pairs & (2**ROW_BITS - 1)
    later = (pairs + ((2**EQUAL_BITS - 1) << ROW_BITS)) >> (ROW_BITS + EQUAL_BITS)
    cuts = np.flatnonzero(np.diff(later, prepend=-1, append=-1))
    for start, stop in pairwise(cuts.tolist()):
        yield int(later[start]), earlier[start:stop].tolist()


def _pairs(band: Hashes, prompts: int) -> Iterator[tuple[Rows, Rows]]:
    """Rows that share a hash, the earlier one and the later one; the prompts are rows 0, 1, ..."""
    order = np.argsort(band, kind="stable")
    places = np.arange(len(band))
    first = np.concatenate([[True], band[order][1:] != band[order][:-1]])[: len(band)]
    firsts = np.maximum.accumulate(np.where(first, places, 0))  # of the rows that share the hash
    later = places[~first]
    if prompts:
        later = later[order[later] >= prompts]
    for rank in range(MOST_IN_BAND):
        earlier = order[firsts[later] + rank]
        if prompts:
            later, earlier = later[earlier < prompts], earlier[earlier < prompts]
        yield earlier, order[later]
        later = later[firsts[later] + rank + 1 < later]


def _equal(minima: Bytes, one: Rows, other: Rows) -> Rows:
    """How many of the minima of each pair are equal."""
    counts = [
        np.count_nonzero(minima[one[place:stop]] == minima[other[place:stop]], axis=1)
        for place in range(0, len(one), PAIRS_AT_ONCE)
        for stop in [place + PAIRS_AT_ONCE]
    ]
    return np.concatenate([np.empty(0, np.int64), *counts])
