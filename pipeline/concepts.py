"""Concepts: the words of a caption that decide what is to be seen.

In:    a caption's words in lower case.
Out:   its colours, counts, places and objects, for balance and to tell apart captions that differ
       in nothing else.

The objects are the classes of COCO, which GenEval asks for (arXiv 1405.0312, 2310.11513).
"""

from collections.abc import Sequence


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


COLOURS = _set(
    """red orange yellow green blue purple violet pink brown black white grey gray gold golden
    silver  beige turquoise teal cyan magenta crimson scarlet maroon navy lime olive tan
    ivory"""
)
COUNTS = _set(
    """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty dozen hundred thousand pair couple single
    several  many few no without first second third"""
)
PLACES = _set(
    """left right above below under underneath beneath over top bottom behind front beside next
    near  between inside outside in on around across through against among left-hand right-
    hand far  upper lower middle center centre corner background foreground up down"""
)
OBJECTS = _set(
    """person people man woman child boy girl bicycle car motorcycle airplane bus train truck
    boat  bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella
    handbag tie  suitcase frisbee skis snowboard ball kite bat glove skateboard surfboard
    racket bottle glass  cup fork knife spoon bowl banana apple sandwich orange broccoli
    carrot pizza donut cake chair  couch plant bed table toilet tv laptop mouse remote
    keyboard phone microwave oven toaster sink  refrigerator book clock vase scissors
    toothbrush circle square triangle cross ring star"""
)
KINDS = {"colours": COLOURS, "counts": COUNTS, "places": PLACES, "objects": OBJECTS}
ALL = COLOURS | COUNTS | PLACES | OBJECTS


def concepts(words: Sequence[str]) -> list[str]:
    """The concept words and numbers of a caption, in its order, the plural as the singular."""
    found = []
    for word in words:
        if word in ALL or word.isdigit():
            found.append(word)
        elif word.endswith("s") and word[:-1] in OBJECTS:
            found.append(word[:-1])
        elif word.endswith("es") and word[:-2] in OBJECTS:
            found.append(word[:-2])
    return found


def kinds_of(words: Sequence[str]) -> dict[str, set[str]]:
    """The different concepts of a caption by kind."""
    named = concepts(words)
    found = {kind: {word for word in named if word in those} for kind, those in KINDS.items()}
    found["counts"] |= {word for word in named if word.isdigit()}
    return found
