"""Every good sample of a caption over every bad one, under the scorer's thresholds.

In:    the samples of one caption, each with its score and whether the thresholds keep it.
Out:   a comparison of each good sample with each bad one; a tie where all are good, or all bad.

`good_over_bad` takes one pair of these. All of them are three times as many from the same samples,
and with a judge that calls crowded pictures bad their winners hold as many objects as their losers:
a policy learns what is asked for, and not to draw more.
"""

from collections.abc import Sequence

from pipeline.pair_builders import TIE, Contender, Pairing, apart


class EveryGoodOverBad:
    name = "every_good_over_bad"
    reads_teacher = False

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        good = [sample for sample in samples if sample.good]
        bad = [sample for sample in samples if not sample.good]
        if not (good and bad):
            best = max(samples, key=lambda sample: sample.score)
            worst = min(samples, key=lambda sample: sample.score)
            return [Pairing(best, worst, TIE)]
        return [
            Pairing(winner, loser, apart(winner, loser, self.min_margin))
            for winner in good
            for loser in bad
        ]
