"""Captions of the embedded world's grammar.

In:    how many captions, and a seed.
Out:   rows, the six tasks in turn or by their shares; held-out prompts never occur, the same
       caption may occur twice.
Rerun: the same values give the same rows.
"""

import hashlib
from collections.abc import Iterator

from pipeline.caption_sources import Part, SourceRow
from pipeline.config import ShapesCaptions
from pipeline.shapes.grammar import GRAMMAR_VERSION, sample_captions


class ShapesSource:
    licence = "MIT"

    def __init__(self, config: ShapesCaptions) -> None:
        self.config = config
        self.name = config.name

    def fingerprint(self) -> str:
        values = f"{GRAMMAR_VERSION}:{self.config.num_captions}:{self.config.seed}"
        if self.config.task_shares:
            values += f":{sorted(self.config.task_shares.items())}"
        return hashlib.sha256(values.encode()).hexdigest()

    def parts(self) -> list[Part]:
        return [Part(self.name, self.fingerprint(), self._rows)]

    def _rows(self) -> Iterator[SourceRow]:
        values = self.config
        shares: dict[str, float] = dict(values.task_shares.items())
        captions = sample_captions(values.num_captions, values.seed, shares)
        for number, caption in enumerate(captions, 1):
            yield SourceRow(caption, f"{self.name}:{number}")
