"""The best and the worst of the policy's own samples of a caption, under the scorer.

In:    the samples of one caption.
Out:   one comparison; a tie where their scores are nearly equal.

Both pictures come from the model that learns, so nothing but what they show tells them apart.
"""

from collections.abc import Sequence

from pipeline.pair_builders import Contender, Pairing, apart


class BestOverWorst:
    name = "best_over_worst"
    reads_teacher = False

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        best = max(samples, key=lambda sample: sample.score)
        worst = min(samples, key=lambda sample: sample.score)
        return [Pairing(best, worst, apart(best, worst, self.min_margin))]
