"""The best good sample of a caption over the bad one that comes nearest to it.

In:    the samples of one caption, each with its score and whether the thresholds keep it.
Out:   one comparison; a tie where all samples are good, or all bad.

The worst sample of a caption differs from the best in much that nobody asked about: it is often
emptier. The best bad one differs in little more than what makes it bad: an object too many, one
wrong colour. In the embedded world the winners of such pairs hold as many objects as the losers.
"""

from collections.abc import Sequence

from pipeline.pair_builders import TIE, Contender, Pairing, apart


class GoodOverNearMiss:
    name = "good_over_near_miss"
    reads_teacher = False

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        good = [sample for sample in samples if sample.good]
        bad = [sample for sample in samples if not sample.good]
        best = max(good or samples, key=lambda sample: sample.score)
        near = max(bad or samples, key=lambda sample: sample.score)
        clear = bool(good and bad)
        return [Pairing(best, near, apart(best, near, self.min_margin) if clear else TIE)]
