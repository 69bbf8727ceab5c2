"""Captions that are counted, not written: different, about 50 letters, in parts of 100,000."""

import random
from collections.abc import Iterator, Sequence

from pipeline.caption_sources import Part, SourceRow, fingerprint_of

PART = 100_000
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
THINGS = ("boat", "lamp", "horse", "chair", "kettle", "tower", "bicycle", "apple")


class NullCaptions:
    def __init__(self, name: str, licence: str, number: int) -> None:
        self.name, self.licence, self.number = name, licence, number

    def fingerprint(self) -> str:
        return fingerprint_of(self.parts())

    def parts(self) -> Sequence[Part]:
        """A source that grows has the same parts first."""
        firsts = range(0, self.number, PART)
        return [self._part(first, min(PART, self.number - first)) for first in firsts]

    def _part(self, first: int, number: int) -> Part:
        name = f"{first}+{number}"
        return Part(name, name, lambda: self._rows(first, number))

    def _rows(self, first: int, number: int) -> Iterator[SourceRow]:
        draw = random.Random(first)
        for row in range(first, first + number):
            colour, thing = draw.choice(COLOURS), draw.choice(THINGS)
            yield SourceRow(f"a {colour} {thing} with the number {row} on its side", f"null:{row}")
