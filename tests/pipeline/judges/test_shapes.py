import numpy as np
from PIL import Image

from pipeline.config import ShapesJudge, ShapesTeacher
from pipeline.judges import build, missing
from pipeline.shapes.grammar import sample_captions
from pipeline.shapes.renderer import Placed, render
from pipeline.teachers import build as build_teacher

CAPTIONS = sample_captions(120, 1)
JUDGE = build(ShapesJudge(kind="shapes"))


def drawn(error_rate: float) -> list[Image.Image]:
    teacher = build_teacher(ShapesTeacher(kind="shapes", error_rate=error_rate))
    return [drawing.image for drawing in teacher.draw(CAPTIONS, range(len(CAPTIONS)), 64)]


def test_right_pictures_pass_and_wrong_ones_fall_below_a_half_with_a_reason() -> None:
    for verdict in JUDGE.judge(drawn(0), CAPTIONS):
        assert verdict.alignment == 1
        assert verdict.quality > 0.9
        assert verdict.reason == ""
    for verdict in JUDGE.judge(drawn(1), CAPTIONS):
        assert verdict.alignment < 0.5
        assert verdict.reason
        assert verdict.words


def test_an_object_that_nobody_asked_for_costs_quality_alone() -> None:
    placed = [Placed("circle", "red", 2, 2, 12), Placed("square", "blue", 34, 34, 12)]
    (verdict,) = JUDGE.judge([Image.fromarray(render(placed, 64))], ["a red circle"])
    assert verdict.alignment == 1
    assert verdict.quality < 0.8
    assert verdict.words == "all as asked, and 1 more"


def test_noise_and_captions_outside_the_grammar_score_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    one, other = JUDGE.judge([Image.fromarray(noise)] * 2, ["a circle", "a dog"])
    assert (one.alignment, one.quality, one.reason) == (0, 0, "missing object")
    assert (other.alignment, other.reason) == (0, "not in the grammar")
    assert missing(ShapesJudge(kind="shapes")) == []
