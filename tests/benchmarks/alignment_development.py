"""Prompts to choose an alignment by: none of those that it is measured on afterwards.

In:    a checkpoint of the embedded world.
Out:   its outcome on the held-out prompts behind the evaluation's, drawn from other seeds.
Rerun: the same weights give the same outcome.
"""

from pathlib import Path

from PIL import Image

from pipeline.config import RunConfig
from pipeline.drawing import draw
from pipeline.images import seed_of
from pipeline.shapes.detector import detect
from pipeline.shapes.grammar import TASKS, held_out_prompts, parse
from pipeline.shapes.rules import check, num_extra
from tests.benchmarks.alignment_outcomes import DIGITS, Outcome

EVALUATED = 60  # prompts a task, the first of the same order, that the evaluation draws
PER_TASK = 60
PICTURES = 2
SEED = 7_000


def on_development_prompts(config: RunConfig, folder: Path) -> Outcome:
    """Right and crowded pictures of a checkpoint, as `Outcome` holds them."""
    assert config.evaluation
    assert config.dpo
    by_task = held_out_prompts(EVALUATED + PER_TASK)
    orders = [
        (task, text, number)
        for task in TASKS
        for text in by_task[task][EVALUATED:]
        for number in range(PICTURES)
    ]
    values = config.evaluation
    seeds = [seed_of(text, number, SEED) for _, text, number in orders]
    texts = [text for _, text, _ in orders]
    drawn = draw(
        config, folder, texts, seeds, image_size=values.image_size, sampling=values.sampling
    )
    images: list[Image.Image] = [image for batch in drawn for image in batch]
    right = dict.fromkeys(TASKS, "")
    extra = dict(right)
    for (task, text, _), image in zip(orders, images, strict=True):
        spec, found = parse(text), detect(image)
        assert spec is not None, text
        right[task] += str(int(check(spec, found).correct))
        extra[task] += DIGITS[min(9, num_extra(spec, found))]
    return Outcome("", config.dpo.seed, 0.0, 0, 0, 0.0, right, extra, PICTURES)
