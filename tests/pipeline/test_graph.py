"""The graph: every box, arrow and note, nothing outside the page."""

import re
import xml.etree.ElementTree as ElementTree

from pipeline.graph import Box, Note, staircase

BOXES = [
    Box("captions", "captions-1", ("captions @ 1, 60 rows",), (), (Note("source", "shapes"),)),
    Box("images", "images-1", ("images @ 1, 69 rows",), ("captions",)),
    Box("features", "features-1", ("a", "b"), ("captions", "images")),
]


def words(svg: bytes) -> str:
    return "|".join(ElementTree.fromstring(svg).itertext())


def test_every_box_and_note_is_written():
    text = words(staircase(BOXES))
    for box in BOXES:
        assert box.name in text
        assert box.label in text
    assert "source: shapes" in text


def test_there_is_an_arrow_for_each_thing_read():
    def shapes(boxes: list[Box]) -> int:
        return len(re.findall(rb'id="patch_', staircase(boxes)))

    bare = [Box(box.name, box.label, box.lines, (), box.notes) for box in BOXES]
    assert shapes(BOXES) > shapes(bare)


def test_what_does_not_fit_is_counted():
    notes = tuple(Note("source", f"set {number}") for number in range(9))
    text = words(staircase([Box("captions", "x", tuple("abcdefgh"), (), notes)]))
    assert "and 4 more" in text
    assert "set 4" in text
    assert "set 5" not in text


def test_the_same_boxes_give_the_same_bytes():
    assert staircase(BOXES) == staircase(BOXES)
