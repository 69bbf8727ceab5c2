"""GenEval in the embedded world: held-out prompts of the six tasks, judged by the exact detector.

In:    how many prompts a task; then pictures with their prompts.
Out:   prompts in a fixed order; right or wrong with a reason, by GenEval's rules.
"""

from collections.abc import Sequence

from PIL import Image

from pipeline.config import ShapesEvaluator
from pipeline.evaluators import Prompt, Score
from pipeline.shapes.detector import DETECTOR_VERSION, detect
from pipeline.shapes.grammar import TASKS, held_out_prompts, parse
from pipeline.shapes.rules import check, num_extra


class ShapesScorer:
    name = "shapes"
    judge = f"shapes detector {DETECTOR_VERSION}"

    def __init__(self, config: ShapesEvaluator) -> None:
        self.config = config
        self.images_per_prompt = config.images_per_prompt

    def prompts(self) -> list[Prompt]:
        by_task = held_out_prompts(self.config.prompts_per_task)
        texts = [(task, text) for task in TASKS for text in by_task[task]]
        return [Prompt(index, task, text) for index, (task, text) in enumerate(texts)]

    def score(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[Score]:
        return [_score(image, prompt) for image, prompt in zip(images, prompts, strict=True)]


def _score(image: Image.Image, prompt: Prompt) -> Score:
    spec = parse(prompt.text)
    if spec is None:
        raise ValueError(f"prompt {prompt.index} is outside the grammar: {prompt.text!r}")
    found = detect(image)
    outcome = check(spec, found)
    return Score(outcome.correct, outcome.reason, num_extra(spec, found), outcome.words)
