"""Which two pictures of a caption are compared, and which of them is better.

To add a pair builder: its name in `PairKind` of `pipeline/config.py`, a file here, one case in
`build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from pipeline.config import PairKind, PreferencesConfig

GOOD_SAMPLE, TIE, SAME = "the sample is good", "tie", "both pictures are the same"


@dataclass(frozen=True)
class Contender:
    """One picture of a comparison."""

    origin: str
    latents: bytes  # float16 bits of the normalised latents (c, h, w)
    image: bytes  # PNG
    score: float
    good: bool
    seed: int = 0


@dataclass(frozen=True)
class Pairing:
    """One comparison; a pair to learn from where it has no reason against it."""

    winner: Contender
    loser: Contender
    reason: str = ""


class PairBuilder(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def reads_teacher(self) -> bool:
        """Whether the teacher's pictures are wanted at all."""
        ...

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        """The comparisons of one caption: the teacher's accepted pictures, the policy's samples."""
        ...


def build(config: PreferencesConfig) -> tuple[PairBuilder, ...]:
    """The builders of a run, in its order."""
    return tuple(_build(kind, config.min_margin) for kind in config.pairs)


def _build(kind: PairKind, min_margin: float) -> PairBuilder:
    match kind:
        case "teacher_over_student":
            from pipeline.pair_builders.teacher_over_student import TeacherOverStudent

            return TeacherOverStudent(min_margin)
        case "best_over_worst":
            from pipeline.pair_builders.best_over_worst import BestOverWorst

            return BestOverWorst(min_margin)
        case "same_seed":
            from pipeline.pair_builders.same_seed import SameSeed

            return SameSeed(min_margin)
        case "good_over_bad":
            from pipeline.pair_builders.good_over_bad import GoodOverBad

            return GoodOverBad(min_margin)
        case "every_good_over_bad":
            from pipeline.pair_builders.every_good_over_bad import EveryGoodOverBad

            return EveryGoodOverBad(min_margin)
        case _:
            assert_never(kind)


def apart(winner: Contender, loser: Contender, min_margin: float) -> str:
    """Why two pictures are no pair; "" where the winner is better by a margin."""
    margin = winner.score - loser.score
    if margin <= 0 or margin < min_margin:
        return TIE
    return SAME if winner.latents and winner.latents == loser.latents else ""
