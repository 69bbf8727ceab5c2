"""The teacher's picture, drawn or real, against each of the student's samples (the paper's pairs).

In:    the teacher's first accepted picture of a caption, the policy's samples.
Out:   a comparison a sample; a good sample is none to unlearn, a near one is a tie.

Source: arXiv 2503.08619 with its code: the given picture wins, the model's own loses.
"""

from collections.abc import Sequence

from pipeline.pair_builders import GOOD_SAMPLE, Contender, Pairing, apart


class TeacherOverStudent:
    name = "teacher_over_student"
    reads_teacher = True

    def __init__(self, min_margin: float) -> None:
        self.min_margin = min_margin

    def pair(self, teacher: Sequence[Contender], samples: Sequence[Contender]) -> list[Pairing]:
        return [judged(teacher[0], sample, self.min_margin) for sample in samples]


def judged(teacher: Contender, sample: Contender, min_margin: float) -> Pairing:
    reason = GOOD_SAMPLE if sample.good else apart(teacher, sample, min_margin)
    return Pairing(teacher, sample, reason)
