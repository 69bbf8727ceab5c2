"""Every good sample of a caption over every bad one, under the scorer's thresholds.

In:    the samples of one caption, each with its score and whether the thresholds keep it.
Out:   a comparison of each good sample with each bad one; a tie where all are good, or all bad.

`good_over_bad` takes one pair of these. All of them are three times as many from the same samples,
and with a judge that calls crowded pictures bad their winners hold as many objects as their losers:
a policy learns what is asked for, and not to draw more.
"""

from collections.abc import Sequence

from pipeline.pair_builders import Contender, Pairing, apart
from pipeline.pair_builders.good_over_bad import GoodOverBad, parted


class EveryGoodOverBad(GoodOverBad):
    name = "every_good_over_bad"

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        good, bad = parted(samples)
        if not (good and bad):
            return super().pair(teacher, samples)
        return [
            Pairing(winner, loser, apart(winner, loser, self.min_margin))
            for winner in good
            for loser in bad
        ]
