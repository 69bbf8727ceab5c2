"""Captions of the embedded world: GenEval's six tasks over four shapes and six colours.

In:    a number of captions and a seed, or one caption.
Out:   captions; for a caption of the grammar its `Spec`. `parse` is the inverse of `phrase`.
Rerun: the same seed gives the same captions. What is held out is a function of the caption
       alone, so no training caption of any seed occurs among the evaluation's prompts.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
RELATIONS = ("left of", "right of", "above", "below")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COUNTS = {"two": 2, "three": 3, "four": 4}
# Many ways to say the same, so that even the task of four scenes has hundreds of captions.
FRONTS = (
    "",
    *(f"a {kind} of " for kind in ("photo", "picture", "drawing", "sketch", "painting", "print")),
    *(f"a {kind} with " for kind in ("card", "poster", "sign", "page", "sticker", "tile")),
    "an image of ",
)
BACKS = (
    "",
    *(f" on {tone} {ground}" for tone in ("white", "plain") for ground in ("paper", "cloth")),
    *(f" on a {tone} {ground}" for tone in ("white", "plain") for ground in ("background", "wall")),
    " on paper",
    " on a page",
    " in a book",
)

COLOURED_SHARE = 0.25  # of counting and position, which GenEval itself asks without colours
HELD_OUT_CAPTIONS = 0.2  # share of caption strings, in tasks of few scenes
HELD_OUT_SCENES = 0.1  # share of whole scenes, and again of strings, in tasks of many
MANY_SCENES = ("position", "color_attr")
HELD_OUT_STREAM = 1_000_003  # no training seed draws evaluation's prompts
DRAWS_PER_PROMPT = 200  # then a task has no more prompts
GRAMMAR_VERSION = 2  # raise when any caption or the held-out rule changes

_PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
_SINGULARS = {plural: shape for shape, plural in _PLURALS.items()}
_NUMBERS = {count: word for word, count in COUNTS.items()}
_MIRRORED = {"right of": "left of", "below": "above"}
_ONE = rf"a (?:({'|'.join(COLOURS)}) )?({'|'.join(SHAPES)})"
_SINGLE = re.compile(_ONE)
_PAIR = re.compile(rf"{_ONE} (and|{'|'.join(RELATIONS)}) {_ONE}")
_MANY = re.compile(
    rf"({'|'.join(COUNTS)}) (?:({'|'.join(COLOURS)}) )?({'|'.join(_PLURALS.values())})"
)


@dataclass(frozen=True)
class Thing:
    """What a caption asks for: `count` objects of one shape, of one colour if it names one."""

    shape: str
    colour: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Spec:
    """A caption's meaning; `relation` holds of the first thing relative to the second."""

    task: str
    things: tuple[Thing, ...]
    relation: str | None = None


@dataclass(frozen=True)
class Template:
    front: str = ""
    back: str = ""


TEMPLATES = tuple(Template(front, back) for front in FRONTS for back in BACKS)

WORDS = tuple(
    sorted(
        {word for text in (*FRONTS, *BACKS, *RELATIONS) for word in text.split()}
        | {"a", "and", *SHAPES, *_PLURALS.values(), *COLOURS, *COUNTS}
    )
)


def phrase(spec: Spec, template: Template = TEMPLATES[0]) -> str:
    if spec.task == "counting":
        thing = spec.things[0]
        body = " ".join(
            word for word in (_NUMBERS[thing.count], thing.colour, _PLURALS[thing.shape]) if word
        )
    else:
        named = [
            " ".join(word for word in ("a", thing.colour, thing.shape) if word)
            for thing in spec.things
        ]
        body = f" {spec.relation or 'and'} ".join(named)
    return f"{template.front}{body}{template.back}"


def parse(caption: str) -> Spec | None:
    """The meaning of a caption, None when it is not in the grammar."""
    body = " ".join(caption.lower().split())
    front = max((text for text in FRONTS if body.startswith(text)), key=len)
    back = max((text for text in BACKS if body.endswith(text)), key=len)
    return _parse_body(body[len(front) : len(body) - len(back)])


def _parse_body(body: str) -> Spec | None:
    if match := _SINGLE.fullmatch(body):
        colour, shape = match.groups()
        return Spec("colors" if colour else "single_object", (Thing(shape, colour),))
    if match := _MANY.fullmatch(body):
        number, colour, plural = match.groups()
        return Spec("counting", (Thing(_SINGULARS[plural], colour, COUNTS[number]),))
    if match := _PAIR.fullmatch(body):
        first_colour, first_shape, link, second_colour, second_shape = match.groups()
        things = (Thing(first_shape, first_colour), Thing(second_shape, second_colour))
        colours = sum(thing.colour is not None for thing in things)
        if first_shape == second_shape or colours == 1:
            return None
        if link != "and":
            return Spec("position", things, link)
        if not colours:
            return Spec("two_object", things)
        return Spec("color_attr", things) if first_colour != second_colour else None
    return None


def specs(task: str) -> Iterator[Spec]:
    """Every scene of a task, in a fixed order."""
    some: tuple[str | None, ...] = (None, *COLOURS)
    pairs = list(itertools.permutations(SHAPES, 2))
    if task == "single_object":
        yield from (Spec(task, (Thing(shape),)) for shape in SHAPES)
    elif task == "colors":
        yield from (Spec(task, (Thing(*one),)) for one in itertools.product(SHAPES, COLOURS))
    elif task == "counting":
        for shape, colour, count in itertools.product(SHAPES, some, COUNTS.values()):
            yield Spec(task, (Thing(shape, colour, count),))
    elif task == "two_object":
        yield from (Spec(task, (Thing(first), Thing(second))) for first, second in pairs)
    elif task == "position":
        both: list[tuple[str | None, str | None]] = [(None, None)]
        both.extend(itertools.product(COLOURS, COLOURS))
        for (first, second), (one, other), relation in itertools.product(pairs, both, RELATIONS):
            yield Spec(task, (Thing(first, one), Thing(second, other)), relation)
    elif task == "color_attr":
        for (first, second), (red, blue) in itertools.product(
            pairs, itertools.permutations(COLOURS, 2)
        ):
            yield Spec(task, (Thing(first, red), Thing(second, blue)))
    else:
        raise ValueError(f"unknown task {task!r}; the tasks are {list(TASKS)}")


def coloured(spec: Spec) -> bool:
    return spec.things[0].colour is not None


@cache
def _scenes(task: str, with_colour: bool) -> tuple[Spec, ...]:
    return tuple(spec for spec in specs(task) if coloured(spec) == with_colour)


def held_out(caption: str) -> bool:
    """Whether a caption is kept for evaluation; a text outside the grammar never is."""
    text = " ".join(caption.lower().split())
    spec = parse(text)
    if spec is None:
        return False
    if spec.task not in MANY_SCENES:
        return _fraction("caption", text) < HELD_OUT_CAPTIONS
    return _scene_held_out(spec) or _fraction("caption", text) < HELD_OUT_SCENES


@cache
def _scene_held_out(spec: Spec) -> bool:
    """Held out under every template, and in its mirrored wording too."""
    things, relation = spec.things, spec.relation
    if relation is None:
        things = tuple(sorted(things, key=lambda thing: thing.shape))
    elif relation in _MIRRORED:
        things, relation = things[::-1], _MIRRORED[relation]
    return _fraction("scene", phrase(Spec(spec.task, things, relation))) < HELD_OUT_SCENES


def _fraction(purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.sha256(f"{purpose}:{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def sample_captions(
    num_captions: int, seed: int, shares: Mapping[str, float] | None = None
) -> list[str]:
    """Training captions, the tasks in turn or by their `shares`; drawn with replacement, so some
    occur twice."""
    rng = np.random.default_rng([GRAMMAR_VERSION, seed])
    weights = np.array([(shares or {}).get(task, 0.0) for task in TASKS])
    captions: list[str] = []
    while len(captions) < num_captions:
        task = TASKS[len(captions) % len(TASKS)]
        if shares:
            task = TASKS[rng.choice(len(TASKS), p=weights / weights.sum())]
        caption = _sample_caption(task, rng)
        if not held_out(caption):
            captions.append(caption)
    return captions


def _sample_caption(task: str, rng: np.random.Generator) -> str:
    with_colour = rng.random() < COLOURED_SHARE
    scenes = _scenes(task, with_colour) or _scenes(task, not with_colour)
    spec = scenes[rng.integers(len(scenes))]
    return phrase(spec, TEMPLATES[rng.integers(len(TEMPLATES))])


def held_out_prompts(per_task: int) -> dict[str, list[str]]:
    """Distinct evaluation prompts by task: `per_task` of them, or all where there are fewer."""
    return {task: _held_out_of(task, per_task) for task in TASKS}


def _held_out_of(task: str, per_task: int) -> list[str]:
    """Drawn as training captions are, so that both have the same share of coloured ones."""
    rng = np.random.default_rng([GRAMMAR_VERSION, TASKS.index(task), HELD_OUT_STREAM])
    prompts: dict[str, None] = {}
    for _ in range(per_task * DRAWS_PER_PROMPT):
        caption = _sample_caption(task, rng)
        if held_out(caption):
            prompts[caption] = None
        if len(prompts) == per_task:
            break
    return list(prompts)
