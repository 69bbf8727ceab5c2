"""Pairs to learn from: rows of `preferences` that were kept, checked before anything is trained.

In:    `preferences`, `text`, and how pairs are balanced.
Out:   latents of winners and losers with their text, for the rows of a batch; which rows those are
       is a pure function of the step.
Rerun: the same tables give the same batches. A pair that nothing can be learned from is a
       `ValueError` that names it.

Shapes: P pairs, B rows, c latent channels, h w latent cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.batches import Rows, TableRows, TextStates, batch_rows
from pipeline.config import RunConfig
from pipeline.drawing import encode
from pipeline.orders import batch_of
from pipeline.tables import Snapshot, take
from pipeline.tasks import task_of
from pipeline.verdicts import decoded

COLUMNS = ("pair_id", "caption_id", "caption", "kind", "keep", "winner", "loser")
AT_ONCE = 1024  # rows in memory while they are checked
NAMED = 3  # of the pairs that are wrong
LOOKED_AT = 4  # pairs whose pictures are encoded again
# Of a latent's size. Another dtype of the same VAE moves it by a hundredth, another VAE by all.
MOST_APART = 0.3


@dataclass(frozen=True)
class Pairs:
    source: TableRows
    kept: Rows  # (P,) rows of the table
    pair_ids: Sequence[str]  # (P,)
    text_rows: Rows  # (P,)
    text: TextStates
    shape: tuple[int, int, int]  # c, h, w
    groups: tuple[Rows, ...] = ()  # pairs that share a kind or task; none: as they come

    @staticmethod
    def load(
        source: TableRows,
        text: TextStates,
        *,
        shape: tuple[int, int, int],
        balance: str = "none",
        check: bool = True,
    ) -> "Pairs":
        """`check`: read every pair once; one process of several is enough."""
        keep = np.array(source.whole("keep").to_pylist(), bool)
        if not keep.any():
            raise ValueError(
                f"no preference pairs to learn from: all {len(keep)} rows were rejected; "
                "draw more captions or lower preferences.min_margin"
            )
        kept = np.flatnonzero(keep)
        captions, pair_ids = (_column(source, name, kept) for name in ("caption_id", "pair_id"))
        groups: tuple[Rows, ...] = ()
        if balance == "kind":
            groups = groups_of(_column(source, "kind", kept))
        elif balance == "task":
            groups = groups_of([task_of(caption) for caption in _column(source, "caption", kept)])
        pairs = Pairs(source, kept, pair_ids, text.rows(captions), text, shape, groups)
        if check:
            pairs.check()
        return pairs

    def __len__(self) -> int:
        return len(self.kept)

    def batch(self, batch_size: int, seed: int, step: int) -> Rows:
        """The pairs of a global step, (batch_size,)."""
        if not self.groups:
            return batch_rows(len(self), batch_size, seed, step)
        epoch, place = divmod(step, max(1, len(self) // batch_size))
        return batch_of(balanced_order(self.groups, seed, epoch), place, batch_size)

    def take(self, pairs: Rows) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) of the winners, and of the losers."""
        table = self.source.take(self.kept[pairs])
        return self._latents(table["winner"].to_pylist()), self._latents(table["loser"].to_pylist())

    def expect(self, pairs: Rows) -> None:
        """These pairs are taken soon."""
        self.source.expect(self.kept[pairs])
        self.text.source.expect(self.text_rows[pairs])

    def _latents(self, column: list[bytes]) -> Tensor:
        rows = np.stack([np.frombuffer(bits, np.float16) for bits in column])
        return torch.from_numpy(rows).float().view(len(rows), *self.shape)

    def check(self) -> None:
        """ValueError where a pair has one side only, twice the same, or no latents of its size."""
        wrong = list(self._wrong())
        if wrong:
            raise ValueError(
                f"preferences: {len(wrong)} of {len(self)} pairs cannot be learned from: "
                + "; ".join(wrong[:NAMED])
                + ("; ..." if len(wrong) > NAMED else "")
            )

    def _wrong(self) -> Iterator[str]:
        for first in range(0, len(self), AT_ONCE):
            rows = np.arange(first, min(first + AT_ONCE, len(self)))
            table = self.source.take(self.kept[rows])
            sides = (table["winner"].to_pylist(), table["loser"].to_pylist())
            for row, winner, loser in zip(rows.tolist(), *sides, strict=True):
                why = fault(winner, loser, self.shape)
                if why:
                    yield f"{self.pair_ids[row]} {why}"


def _column(source: TableRows, name: str, kept: Rows) -> list[str]:
    values: list[str] = source.whole(name).take(pa.array(kept)).to_pylist()
    return values


def fault(winner: bytes | None, loser: bytes | None, shape: tuple[int, int, int]) -> str:
    """What is wrong with the two latents of a pair; "" for nothing."""
    for name, side in (("winner", winner), ("loser", loser)):
        if side is None:
            return f"has no {name}"
        if len(side) != 2 * np.prod(shape):
            return (
                f"has a {name} of {len(side) // 2} values, not {int(np.prod(shape))} "
                f"({' x '.join(map(str, shape))}): the latents of another VAE or picture size"
            )
        if not np.isfinite(np.frombuffer(side, np.float16)).all():
            return f"has a {name} that is not finite"
    return "has the same picture on both sides" if winner == loser else ""


def check_latents(config: RunConfig, snapshot: Snapshot, pairs: Pairs) -> None:
    """ValueError where the run's VAE reads other latents from the pictures than stand beside them.

    Latents of another VAE may have the right size: only encoding some pictures again tells.
    """
    chosen = np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).astype(int)
    images = [f"{side}_image" for side in ("winner", "loser")]
    rows = take(config.root, snapshot, pairs.kept[chosen].tolist(), images)
    for column, given in zip(images, pairs.take(chosen), strict=True):
        pictures = [decoded(data) for data in rows[column].to_pylist()]
        seen = [(n, picture) for n, picture in enumerate(pictures) if picture is not None]
        if not seen:
            continue
        read = torch.from_numpy(encode(config, [picture for _, picture in seen])).float()
        theirs = given[[n for n, _ in seen]]
        apart = (read - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
        if apart.max() > MOST_APART:
            pair = pairs.pair_ids[int(chosen[seen[int(apart.argmax())][0]])]
            raise ValueError(
                f"preferences: the latents of pair {pair} are {apart.max():.0%} of their size away "
                f"from what features.autoencoder reads from its {column.replace('_', ' ')}: they "
                "are of another VAE; make the preferences again"
            )


# --- balance ------------------------------------------------------------------------------------


def groups_of(names: Sequence[str]) -> tuple[Rows, ...]:
    """Rows by name, the names in order."""
    return tuple(
        np.array([row for row, name in enumerate(names) if name == group], np.int64)
        for group in sorted(set(names))
    )


def balanced_order(groups: Sequence[Rows], seed: int, epoch: int) -> Rows:
    """As many rows of each group: a small one repeats its own, a large one shows others later."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    share = -(-sum(map(len, groups)) // len(groups))
    rows = [np.resize(random.permutation(group), share) for group in groups]
    return random.permutation(np.concatenate(rows))
