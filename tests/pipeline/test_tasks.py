"""A caption's task, by the grammar of shapes or by its concepts."""

import pytest

from pipeline.shapes.grammar import held_out_prompts
from pipeline.tasks import task_of


def test_the_grammars_captions_have_its_tasks() -> None:
    for task, prompts in held_out_prompts(5).items():
        assert {task_of(prompt) for prompt in prompts} == {task}


@pytest.mark.parametrize(
    ("caption", "task"),
    [
        ("A photo of a bench", "single_object"),
        ("one happy dog", "single_object"),
        ("a dog, a cat and their owner", "two_object"),
        ("four handbags in a shop", "counting"),
        ("a yellow bird", "colors"),
        ("a cat to the left of a truck", "position"),
        ("a green cup beside nothing", "colors"),
        ("a red bus and a white dog", "color_attr"),
        ("fog over water at dawn", "other"),
    ],
)
def test_other_captions_are_what_they_name(caption: str, task: str) -> None:
    assert task_of(caption) == task
