import pytest

from pipeline.config import ShapesEvaluator, ShapesTeacher
from pipeline.evaluators import build, identity, missing
from pipeline.shapes.grammar import TASKS, held_out
from pipeline.teachers import build as build_teacher


def test_prompts_are_held_out_numbered_and_of_all_tasks() -> None:
    prompts = build(ShapesEvaluator(kind="shapes", prompts_per_task=60)).prompts()
    assert [prompt.index for prompt in prompts] == list(range(len(prompts)))
    assert len({prompt.text for prompt in prompts}) == len(prompts) >= 300
    assert {prompt.task for prompt in prompts} == set(TASKS)
    assert all(held_out(prompt.text) for prompt in prompts)


@pytest.mark.parametrize(("error_rate", "correct"), [(0, True), (1, False)])
def test_it_scores_a_faultless_teacher_one_and_a_hopeless_one_nought(error_rate, correct) -> None:
    evaluator = build(ShapesEvaluator(kind="shapes", prompts_per_task=10))
    prompts = evaluator.prompts()
    teacher = build_teacher(ShapesTeacher(kind="shapes", error_rate=error_rate))
    drawings = teacher.draw([prompt.text for prompt in prompts], range(len(prompts)), 128)
    scores = evaluator.score([drawing.image for drawing in drawings], prompts)
    assert {score.correct for score in scores} == {correct}
    assert all(bool(score.reason) != score.correct for score in scores)


def test_it_counts_what_nobody_asked_for() -> None:
    evaluator = build(ShapesEvaluator(kind="shapes", prompts_per_task=10))
    one, two = (next(p for p in evaluator.prompts() if p.task == task) for task in TASKS[:2])
    teacher = build_teacher(ShapesTeacher(kind="shapes", error_rate=0))
    (drawing,) = teacher.draw([two.text], [0], 128)
    (asked,) = evaluator.score([drawing.image], [two])
    (other,) = evaluator.score([drawing.image], [one])
    assert asked.extra_objects == 0
    assert other.extra_objects >= 1  # two objects where one is asked for


def test_it_needs_nothing_and_is_known_by_its_values() -> None:
    config = ShapesEvaluator(kind="shapes", prompts_per_task=7)
    assert missing(config) == []
    assert identity(config) == config.model_dump(mode="json")
    assert build(config).judge == "shapes detector 1"
