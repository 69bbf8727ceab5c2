"""The best good sample of a caption over its worst bad one, under the scorer's thresholds.

In:    the samples of one caption, each with its score and whether the thresholds keep it.
Out:   one comparison; a tie where all samples are good, or all bad.

What counts as good is the scorer's: in the embedded world a `min_quality` above 0.75 makes a right
picture with an object too many a bad one. `best_over_worst` cannot say this: its best picture may
be right and crowded, its worst is often empty, and so a policy learns to draw more.
"""

from collections.abc import Sequence

from pipeline.pair_builders import TIE, Contender, Pairing, apart


def parted(samples: Sequence[Contender]) -> tuple[list[Contender], list[Contender]]:
    """Those that the thresholds keep, and the others."""
    good = [sample for sample in samples if sample.good]
    return good, [sample for sample in samples if not sample.good]


class GoodOverBad:
    name = "good_over_bad"
    reads_teacher = False

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        good, bad = parted(samples)
        best = max(good or samples, key=lambda sample: sample.score)
        worst = min(bad or samples, key=lambda sample: sample.score)
        clear = bool(good and bad)
        return [Pairing(best, worst, apart(best, worst, self.min_margin) if clear else TIE)]
