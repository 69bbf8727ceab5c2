"""The look at a student while it learns."""

from pipeline.evaluators import Prompt
from pipeline.watching import first_of_each_task


def test_the_curve_sees_every_task() -> None:
    prompts = [Prompt(n, task, "a circle") for n, task in enumerate("aababbccc")]
    assert [p.index for p in first_of_each_task(prompts, 2)] == [0, 1, 2, 4, 6, 7]
