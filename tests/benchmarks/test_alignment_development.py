"""An alignment is chosen by other prompts than those it is measured on."""

from collections import Counter

from pipeline.config import ShapesEvaluator
from pipeline.evaluators.shapes import ShapesScorer
from pipeline.shapes.grammar import held_out
from tests.benchmarks.alignment_development import PER_TASK, development_prompts


def test_no_prompt_to_choose_by_is_one_of_the_evaluations_or_of_training() -> None:
    evaluator = ShapesEvaluator(kind="shapes", prompts_per_task=60)
    measured = {prompt.text for prompt in ShapesScorer(evaluator).prompts()}
    prompts = development_prompts(evaluator)
    assert set(Counter(prompt.task for prompt in prompts).values()) == {PER_TASK}
    assert not measured & {prompt.text for prompt in prompts}
    assert all(held_out(prompt.text) for prompt in prompts)
