"""Teacher against student, each from the same seed: no picture of either is chosen.

In:    the teacher's accepted pictures of a caption, the policy's samples of the same seeds.
Out:   a comparison a seed that both drew; a good sample is none to unlearn, a near one is a tie.

Every teacher's picture occurs once, where `teacher_over_student` shows its first one with every
sample. It needs a teacher that draws from seeds.
"""

from collections.abc import Sequence

from pipeline.pair_builders import Contender, Pairing
from pipeline.pair_builders.teacher_over_student import judged


class SameSeed:
    name = "same_seed"
    reads_teacher = True

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        drawn = {sample.seed: sample for sample in samples}
        return [
            judged(picture, drawn[picture.seed], self.min_margin)
            for picture in teacher
            if picture.seed in drawn
        ]
