"""The reference's errors for every pair and draw, measured once before training.

In:    the pairs, the reference's weights, what is drawn for a pair (`pipeline.pair_draws`).
Out:   `reference_errors`, one row a pair and draw, in the order of the pairs.
Rerun: a shard that is whole is kept; another reference, pair table or draw is another version.

With them training holds one network instead of two, and computes a third less of forward passes
and gradients for each time a draw is seen again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from accelerate import Accelerator
from numpy.typing import NDArray

from pipeline.batches import Rows
from pipeline.tables import Shard, Table, TableFolder, identifier, read

PAIRS_PER_SHARD = 2048

REFERENCE_ERRORS = Table(
    name="reference_errors",
    version=1,
    schema=pa.schema(
        [
            pa.field("pair_id", pa.string(), False),
            pa.field("draw", pa.int32(), False),
            # mean squared error over the pair's masked tokens, as training weights it
            pa.field("winner", pa.float32(), False),
            pa.field("loser", pa.float32(), False),
        ]
    ),
)

Measure = Callable[[Rows, int], tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True)
class ErrorTable:
    """Where the errors of some pairs and one reference lie."""

    folder: TableFolder
    inputs: str
    pair_ids: Sequence[str]
    num_draws: int
    batch_size: int

    @staticmethod
    def of(
        root: str, values: object, inputs: str, pair_ids: Sequence[str], num_draws: int, size: int
    ) -> "ErrorTable":
        """`values`: what shapes a draw and an error; `inputs`: the reference and the pairs."""
        folder = TableFolder(root, REFERENCE_ERRORS, values)
        return ErrorTable(folder, identifier(inputs, num_draws), pair_ids, num_draws, size)

    def measured(self, measure: Measure, accelerator: Accelerator) -> NDArray[np.float32]:
        """The errors (P, draws, 2), winner first; each process measures its shards."""
        found = self.folder.find(self.inputs)
        if found is None:
            firsts = range(0, len(self.pair_ids), PAIRS_PER_SHARD)
            for first in firsts[accelerator.process_index :: accelerator.num_processes]:
                self._shard(first, measure)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                shards = [self._shard(first, measure) for first in firsts]
                self.folder.commit(shards, self.inputs)
            accelerator.wait_for_everyone()
            found = self.folder.find(self.inputs)
        assert found is not None
        rows = read(self.folder.root, found, ["pair_id", "winner", "loser"])
        assert rows["pair_id"].to_pylist()[:: self.num_draws] == list(self.pair_ids)
        sides = [rows[side].to_numpy() for side in ("winner", "loser")]
        return np.stack(sides, axis=-1).reshape(-1, self.num_draws, 2)

    def _shard(self, first: int, measure: Measure) -> Shard:
        """A shard that is there already is not measured."""
        name = identifier(self.folder.fingerprint, self.inputs, first)
        rows = np.arange(first, min(first + PAIRS_PER_SHARD, len(self.pair_ids)))
        return self.folder.write_shard(name, self._rows(rows, measure))

    def _rows(self, rows: Rows, measure: Measure) -> Iterator[pa.RecordBatch]:
        for first in range(0, len(rows), self.batch_size):
            part = rows[first : first + self.batch_size]
            errors = np.array([measure(part, number) for number in range(self.num_draws)])
            winner, loser = errors.transpose(1, 2, 0)  # (B, draws) each
            columns = {
                "pair_id": [self.pair_ids[row] for row in part for _ in range(self.num_draws)],
                "draw": list(range(self.num_draws)) * len(part),
                "winner": winner.ravel(),
                "loser": loser.ravel(),
            }
            yield pa.RecordBatch.from_pydict(columns, schema=REFERENCE_ERRORS.schema)
