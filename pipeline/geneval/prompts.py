"""GenEval's prompts: what each asks for, as rows of the published `evaluation_metadata.jsonl`.

In:    a JSON line a prompt: {"tag", "include": [{"class", "count", "color"?, "position"?}],
       "exclude"?: [{"class", "count"}], "prompt"}.
Out:   a `Request` a row. A row that cannot be scored as it means is a ValueError with its place:
       the published program would count it as wrong pictures.

GenEval: An Object-Focused Framework for Evaluating Text-to-Image Alignment (arXiv 2310.11513).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Detectors number their classes as COCO does; three names are GenEval's own, so labels are
# mapped by number: computer mouse, tv remote, computer keyboard.
CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop"),
    *("computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
COLOURS = (
    *("red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "black", "white"),
)
RELATIONS = ("left of", "right of", "above", "below")
COUNTING = "counting"  # the tag whose objects must be surer
TAGS = ("single_object", "two_object", COUNTING, "colors", "position", "color_attr")


@dataclass(frozen=True)
class Clause:
    """At least `count` objects of a class, perhaps of a colour, perhaps beside another clause's."""

    name: str  # of the class
    count: int
    colour: str | None = None
    relation: str | None = None
    target: int = 0  # the clause of `include` that the relation is to


@dataclass(frozen=True)
class Request:
    """One prompt and what its picture must and must not show."""

    tag: str
    prompt: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict, compare=False)  # as it was read


def read_requests(path: Path) -> list[Request]:
    """The prompts of a file, in its order, which is what numbers them."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; GenEval's is evaluation_metadata.jsonl")
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path}: no prompts in it")
    return [request_of(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def request_of(line: str, place: str) -> Request:
    """The request in one JSON text; `place` begins the sentence of what is wrong with it."""
    return parse(json_of(line, place), place)


def json_of(text: str, place: str) -> Any:
    """A JSON text; a ValueError of it begins with its place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place}: not JSON: {error}") from error


def parse(row: Any, place: str) -> Request:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected an object of tag, include and prompt, got {row!r:.60}")
    include = tuple(
        _clause(each, position, f"{place}: include {position}")
        for position, each in enumerate(_list(row, "include", place))
    )
    exclude = tuple(
        _clause(each, 0, f"{place}: exclude {position}")
        for position, each in enumerate(_list(row, "exclude", place))
    )
    tag, prompt = (_text(row, key, place) for key in ("tag", "prompt"))
    return Request(tag, prompt, include, exclude, row)


def _clause(value: Any, position: int, place: str) -> Clause:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected an object with class and count, got {value!r:.60}")
    name = _text(value, "class", place)
    if name not in CLASSES:
        raise ValueError(f"{place}: class {name!r} is none of the detector's 80, such as 'tv'")
    count = value.get("count")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{place}: count must be 1 or more, got {count!r}")
    colour = _text(value, "color", place) if "color" in value else None
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"{place}: color {colour!r} is none of {', '.join(COLOURS)}")
    if "position" not in value:
        return Clause(name, count, colour)
    relation, target = _position(value["position"], position, place)
    return Clause(name, count, colour, relation, target)


def _position(value: Any, position: int, place: str) -> tuple[str, int]:
    whole = isinstance(value, list) and len(value) == 2
    if not whole or value[0] not in RELATIONS:
        raise ValueError(
            f"{place}: position must be [relation, number of a clause], the relation one of "
            f"{', '.join(RELATIONS)}; got {value!r:.60}"
        )
    target = value[1]
    if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target < position:
        raise ValueError(
            f"{place}: position names clause {target!r}, but only a clause before it can be meant"
        )
    return value[0], target


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if isinstance(value, list) and len(value) == 1:
        raise ValueError(
            f"{place}: {key} is a list of one, {value!r:.60}, as LightGen's own script writes it; "
            "write the row of evaluation_metadata.jsonl instead"
        )
    if not isinstance(value, str) or not value:
        raise ValueError(f"{place}: {key} must be a text, got {value!r:.60}")
    return value


def _list(row: Mapping[str, Any], key: str, place: str) -> Sequence[Any]:
    value = row.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{place}: {key} must be a list of clauses, got {value!r:.60}")
    return value
