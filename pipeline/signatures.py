"""Signatures: what tells without reading them which captions may nearly repeat each other.

In:    captions.
Out:   for each its MinHash signature in bands: similar captions share a band's hash.
Rerun: a caption has the same signature in any company.

MinHash: Broder, 1997; bands: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
chapter 3. The minima are made by rensa.

Shapes: N captions, P permutations, B bands.
"""

import importlib.util
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.wording import essences

SHINGLE = 5  # letters, without case, punctuation and articles
BANDS, ROWS = 16, 5  # a pair of similarity 0.8 shares a band with 99.8 %, one of 0.3 with 4 %
SEED = 1
CHUNK = 1024  # captions that are hashed at once: they stay in a core's cache
HASHES = 2  # of shingles; counted up when they are others

Hashes = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


def missing() -> list[str]:
    if importlib.util.find_spec("rensa"):
        return []
    return [
        "captions.near_duplicates, captions.decontamination: the package rensa is not installed: "
        "pip install -e '.[captions]'"
    ]


def version() -> str:
    """Changes when other signatures would be made of the same captions."""
    if missing():  # preflight says so; asked before it, this must not fail
        return ""
    from rensa import RMinHash

    return f"{RMinHash.ALGORITHM_VERSION}:{BANDS}x{ROWS}:{SHINGLE}:{HASHES}"


@dataclass(frozen=True)
class Signatures:
    """What is kept of captions to compare them: 208 bytes each."""

    bands: Hashes  # (N, B); captions that share a hash in a band are candidates
    minima: Bytes  # (N, P), the lowest byte of each; the share of equal ones is the similarity

    def take(self, rows: NDArray[np.bool_]) -> "Signatures":
        return Signatures(self.bands[rows], self.minima[rows])

    def after(self, earlier: "Signatures") -> "Signatures":
        return joined([earlier, self])


def joined(blocks: Sequence[Signatures]) -> Signatures:
    return Signatures(
        np.concatenate([np.empty((0, BANDS), np.uint64), *(each.bands for each in blocks)]),
        np.concatenate([np.empty((0, BANDS * ROWS), np.uint8), *(each.minima for each in blocks)]),
    )


def signatures_of(captions: Iterable[str]) -> Signatures:
    return joined([_signatures(texts) for texts in _chunks(captions)])


def _chunks(captions: Iterable[str]) -> Iterator[list[bytes]]:
    rest = iter(captions)
    while chunk := list(islice(rest, CHUNK)):
        yield [
            (text or caption.encode()).ljust(SHINGLE, b"\0")
            for text, caption in zip(essences(chunk), chunk, strict=True)
        ]


def _signatures(texts: Sequence[bytes]) -> Signatures:
    from rensa import RMinHash

    hashes, offsets = _shingles(texts)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, BANDS * ROWS, SEED
    ).to_rows()
    minima = np.frombuffer(b"".join([array("I", row).tobytes() for row in rows]), np.uint32)
    parts = minima.reshape(len(texts), BANDS, ROWS)
    bands = np.zeros((len(texts), BANDS), np.uint64)
    for row in range(ROWS):
        bands = _mixed(bands ^ parts[:, :, row])
    return Signatures(bands, minima.reshape(len(texts), -1).astype(np.uint8))


def _shingles(texts: Sequence[bytes]) -> tuple[Hashes, Hashes]:
    """The hashes of all shingles, one text after the other, and where each text begins (N + 1)."""
    letters = b"\0".join(texts)
    number = len(letters) - SHINGLE + 1
    # The eight bytes from each letter on, of which the first ones are its shingle.
    from_each = np.ndarray(number, "<u8", letters + bytes(8), strides=1)
    hashes = _mixed(from_each & np.uint64(2 ** (8 * SHINGLE) - 1))
    lengths = np.array([len(text) for text in texts])
    counts = lengths - SHINGLE + 1
    starts = np.cumsum(lengths + 1) - lengths - 1
    offsets = np.concatenate([[0], np.cumsum(counts)])
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return hashes[places], offsets.astype(np.uint64)


def _mixed(values: Hashes) -> Hashes:
    values = values * np.uint64(0x9E3779B97F4A7C15)
    return values ^ (values >> np.uint64(29))
