"""Prompts to choose an alignment by: none of those that it is measured on afterwards.

In:    a checkpoint of the embedded world.
Out:   its outcome on the held-out prompts behind the evaluation's, drawn from other seeds.
Rerun: the same weights give the same outcome.
"""

from pathlib import Path

from pipeline.config import RunConfig, ShapesEvaluator
from pipeline.drawing import draw
from pipeline.evaluators import Prompt
from pipeline.evaluators.shapes import ShapesScorer
from pipeline.images import seed_of
from pipeline.shapes.grammar import TASKS, held_out_prompts
from tests.benchmarks.alignment_outcomes import DIGITS, Outcome

PER_TASK = 60
PICTURES = 2
SEED = 7_000


def development_prompts(evaluator: ShapesEvaluator) -> list[Prompt]:
    """As many of each task, behind those that the evaluation draws."""
    first = evaluator.prompts_per_task
    by_task = held_out_prompts(first + PER_TASK)
    texts = [(task, text) for task in TASKS for text in by_task[task][first:]]
    return [Prompt(index, task, text) for index, (task, text) in enumerate(texts)]


def on_development_prompts(config: RunConfig, folder: Path) -> Outcome:
    """Right and crowded pictures of a checkpoint, as `Outcome` holds them."""
    assert config.evaluation
    assert config.dpo
    values = config.evaluation
    (evaluator,) = [one for one in values.evaluators if isinstance(one, ShapesEvaluator)]
    prompts = [one for one in development_prompts(evaluator) for _ in range(PICTURES)]
    seeds = [seed_of(one.text, n % PICTURES, SEED) for n, one in enumerate(prompts)]
    texts = [one.text for one in prompts]
    drawn = draw(
        config, folder, texts, seeds, image_size=values.image_size, sampling=values.sampling
    )
    scores = ShapesScorer(evaluator).score([image for batch in drawn for image in batch], prompts)
    right = dict.fromkeys(TASKS, "")
    extra = dict(right)
    for prompt, score in zip(prompts, scores, strict=True):
        right[prompt.task] += str(int(score.correct))
        extra[prompt.task] += DIGITS[min(9, score.extra_objects)]
    return Outcome("", config.dpo.seed, 0.0, 0, 0, 0.0, right, extra, PICTURES)
