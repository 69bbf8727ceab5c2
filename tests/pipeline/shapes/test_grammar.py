import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.shapes.grammar import (
    SHAPES,
    TASKS,
    TEMPLATES,
    WORDS,
    Spec,
    Thing,
    held_out,
    held_out_prompts,
    parse,
    phrase,
    sample_captions,
    specs,
)

SCENES = [spec for task in TASKS for spec in specs(task)]


@given(st.sampled_from(SCENES), st.sampled_from(TEMPLATES))
def test_parse_is_the_inverse_of_phrase(spec: Spec, template) -> None:
    assert parse(phrase(spec, template)) == spec


@given(st.sampled_from(SCENES), st.sampled_from(TEMPLATES))
def test_every_word_of_a_caption_is_in_the_vocabulary(spec: Spec, template) -> None:
    assert set(phrase(spec, template).split()) <= set(WORDS)


@given(st.text())
def test_any_text_parses_or_is_outside_the_grammar(text: str) -> None:
    spec = parse(text)
    assert spec is None or spec in SCENES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a dog",
        "a circle and a circle",
        "a red circle and a square",
        "a red circle and a red square",
        "five circles",
        "a circle beside a square",
        "a red circle left of a square",
    ],
)
def test_what_the_grammar_cannot_say_is_none(text: str) -> None:
    assert parse(text) is None


def test_a_caption_worked_out_by_hand() -> None:
    assert parse("a photo of a red circle above a blue square on white paper") == Spec(
        "position", (Thing("circle", "red"), Thing("square", "blue")), "above"
    )


@given(st.integers(0, 2**32))
def test_training_captions_are_never_held_out(seed: int) -> None:
    assert not any(held_out(caption) for caption in sample_captions(60, seed))


def test_tasks_come_in_equal_numbers_and_the_same_seed_gives_the_same_captions() -> None:
    captions = sample_captions(600, 3)
    tasks = [spec.task for caption in captions if (spec := parse(caption))]
    assert {task: tasks.count(task) for task in TASKS} == dict.fromkeys(TASKS, 100)
    assert captions == sample_captions(600, 3)


def test_held_out_prompts_are_distinct_held_out_and_at_least_300() -> None:
    prompts = held_out_prompts(60)
    every = [caption for task in TASKS for caption in prompts[task]]
    assert len(set(every)) == len(every) >= 300
    assert all(held_out(caption) for caption in every)
    for task in TASKS:
        assert all((spec := parse(one)) and spec.task == task for one in prompts[task])


def test_about_a_fifth_of_the_captions_is_held_out() -> None:
    for task in TASKS:
        captions = [phrase(spec, one) for spec in specs(task) for one in TEMPLATES]
        assert 0.15 < sum(map(held_out, captions)) / len(captions) < 0.3


def test_a_held_out_scene_is_held_out_in_every_wording() -> None:
    def whole(spec: Spec) -> bool:
        return all(held_out(phrase(spec, one)) for one in TEMPLATES)

    kept = [spec for spec in specs("position") if whole(spec)]
    assert kept
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for spec in kept:
        assert whole(Spec("position", spec.things[::-1], turned[spec.relation]))


def test_every_shape_can_be_trained_in_every_task() -> None:
    captions = sample_captions(6000, 0)
    for task in TASKS:
        found = {
            thing.shape
            for caption in captions
            if (spec := parse(caption)) and spec.task == task
            for thing in spec.things
        }
        assert found == set(SHAPES)


def test_shares_say_how_often_a_task_is_asked() -> None:
    captions = sample_captions(400, 3, {"position": 3.0, "colors": 1.0})
    tasks = [parse(caption).task for caption in captions]
    assert set(tasks) == {"position", "colors"}
    assert 0.68 < tasks.count("position") / 400 < 0.82
    assert captions == sample_captions(400, 3, {"position": 3.0, "colors": 1.0})
    assert sample_captions(12, 3, {}) == sample_captions(12, 3)
