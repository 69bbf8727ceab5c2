"""Every good sample of a caption against every bad one, under the scorer's thresholds.

In:    the samples of one caption, each with its score and whether the thresholds keep it.
Out:   a comparison of each good sample with each bad one; one tie where all are good, or all bad.

What counts as good is the scorer's: in the embedded world `min_quality` above 0.75 makes a right
picture with an object too many a bad one, so that alignment cannot gain by drawing more.
`best_over_worst` cannot say this: its best picture may be right and crowded.
"""

from collections.abc import Sequence

from pipeline.pair_builders import TIE, Contender, Pairing, apart


class GoodOverBad:
    name = "good_over_bad"
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


class GoodX:
    reads_teacher = False

    def __init__(self, min_margin: float, kind: str) -> None:
        self.min_margin, self.name = min_margin, kind

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        good = [s for s in samples if s.good]
        bad = [s for s in samples if not s.good]
        if not (good and bad):
            return []
        w = max(good, key=lambda s: s.score)
        l = (min if self.name == "x_worst" else max)(bad, key=lambda s: s.score)
        return [Pairing(w, l, apart(w, l, self.min_margin))]
