"""What a caption asks for: one of GenEval's six tasks, or none of them.

In:    a caption.
Out:   the task of its grammar in the embedded world; elsewhere what its concepts make it.
"""

import re

from pipeline.concepts import OBJECTS, concepts, kinds_of
from pipeline.shapes.grammar import parse

OTHER = "other"
_WORD = re.compile(r"[\w-]+")
_ONES = {"one", "single", "no", "without", "first", "1"}  # no counting


def task_of(caption: str) -> str:
    spec = parse(caption)
    if spec is not None:
        return spec.task
    words = _WORD.findall(caption.lower())
    kinds = kinds_of(words)
    objects = [word for word in concepts(words) if word in OBJECTS]
    if not objects:
        return OTHER
    if len(objects) > 1 and kinds["places"]:
        return "position"
    if kinds["counts"] - _ONES:
        return "counting"
    if len(objects) > 1:
        return "color_attr" if len(kinds["colours"]) > 1 else "two_object"
    return "colors" if kinds["colours"] else "single_object"
