import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ShapesTeacher
from pipeline.shapes.detector import detect
from pipeline.shapes.grammar import TASKS, parse, sample_captions, specs
from pipeline.shapes.renderer import layout, render
from pipeline.shapes.rules import check
from pipeline.teachers import build, missing
from pipeline.teachers.shapes import mistaken

SCENES = [spec for task in TASKS for spec in specs(task)]
CAPTIONS = sample_captions(300, 0)


def teacher(**values):
    return build(ShapesTeacher(kind="shapes", **values))


def wrong(drawings) -> list[bool]:
    return [
        not check(parse(caption), detect(drawing.image)).correct
        for caption, drawing in zip(CAPTIONS, drawings, strict=True)
    ]


@given(st.sampled_from(SCENES), st.integers(0, 2**32))
def test_every_mistake_is_one_that_the_rules_find(spec, seed) -> None:
    rng = np.random.default_rng(seed)
    found = detect(render(layout(mistaken(spec, rng), rng, 64), 64))
    outcome = check(spec, found)
    assert not outcome.correct
    assert outcome.reason in {"wrong colour", "wrong count", "wrong position", "missing object"}


def test_the_share_of_wrong_pictures_is_the_error_rate_at_every_size() -> None:
    seeds = range(300)
    assert not any(wrong(teacher(error_rate=0).draw(CAPTIONS, seeds, 64)))
    assert all(wrong(teacher(error_rate=1).draw(CAPTIONS, seeds, 64)))
    small = wrong(teacher(error_rate=0.2).draw(CAPTIONS, seeds, 64))
    assert 0.12 < sum(small) / 300 < 0.28
    assert wrong(teacher(error_rate=0.2).draw(CAPTIONS, seeds, 128)) == small


def test_a_picture_depends_on_its_caption_and_seed_alone() -> None:
    together = teacher().draw(CAPTIONS[:20], range(20), 64)
    for index in (0, 7, 19):
        (alone,) = teacher().draw([CAPTIONS[index]], [index], 64)
        assert alone.image.tobytes() == together[index].image.tobytes()
    first, second = teacher(error_rate=0).draw(["a circle"] * 2, [0, 1], 64)
    assert first.image.tobytes() != second.image.tobytes()


def test_a_caption_outside_the_grammar_is_not_drawn() -> None:
    (drawing,) = teacher().draw(["a dog"], [0], 64)
    assert drawing.image is None
    assert drawing.reason == "not in the grammar"


def test_it_lacks_nothing_and_says_what_it_is() -> None:
    assert missing(ShapesTeacher(kind="shapes")) == []
    assert (teacher().facts.name, teacher().facts.licence) == ("shapes", "MIT")
