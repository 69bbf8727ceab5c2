"""Rows of GenEval's prompts: read as they mean, and named where they cannot be."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from pipeline.geneval.prompts import CLASSES, TAGS, Clause, parse, read_requests

PUBLISHED = Path(os.environ.get("LIGHTGEN_DATA", "../shared/data")) / "geneval"
ROW = {
    "tag": "position",
    "include": [
        {"class": "teddy bear", "count": 1},
        {"class": "dog", "count": 1, "color": "red", "position": ["right of", 0]},
    ],
    "exclude": [{"class": "dog", "count": 3}],
    "prompt": "a red dog right of a teddy bear",
}


def test_a_row_becomes_clauses() -> None:
    request = parse(ROW, "row")
    assert (request.tag, request.prompt) == ("position", ROW["prompt"])
    assert request.include == (
        Clause("teddy bear", 1),
        Clause("dog", 1, "red", "right of", 0),
    )
    assert request.exclude == (Clause("dog", 3),)
    assert request.row == ROW


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published prompts")
def test_the_published_prompts_are_read_whole() -> None:
    requests = read_requests(PUBLISHED / "evaluation_metadata.jsonl")
    counts = Counter(request.tag for request in requests)
    assert dict(counts) == dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
    excluding = {request.tag for request in requests if request.exclude}
    assert excluding == {"counting"}
    names = (PUBLISHED / "object_names.txt").read_text().split("\n")
    assert tuple(name for name in names if name) == CLASSES


FAULTS = {
    "class 'mouse' is none": {"include": [{"class": "mouse", "count": 1}]},
    "count must be 1 or more, got 0": {"include": [{"class": "dog", "count": 0}]},
    "count must be 1 or more, got True": {"include": [{"class": "dog", "count": True}]},
    "color 'grey' is none of red": {"include": [{"class": "dog", "count": 1, "color": "grey"}]},
    "the relation one of left of": {
        "include": [{"class": "dog", "count": 1, "position": ["near", 0]}]
    },
    "names clause 0, but only a clause before": {
        "include": [{"class": "dog", "count": 1, "position": ["above", 0]}]
    },
    "a list of one, .'position'., as LightGen's own": {"tag": ["position"]},
    "prompt must be a text, got None": {"prompt": None},
    "include must be a list of clauses": {"include": {"class": "dog"}},
    "exclude 0: count must be 1 or more": {"exclude": [{"class": "dog"}]},
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_a_row_that_cannot_be_scored_is_named(sentence: str) -> None:
    with pytest.raises(ValueError, match=f"file:7.*{sentence}"):
        parse(ROW | FAULTS[sentence], "file:7")


def test_a_file_of_prompts_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match=r"rows\.jsonl: no such file"):
        read_requests(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl: no prompts"):
        read_requests(path)
    path.write_text(json.dumps(ROW) + "\n{]\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not JSON"):
        read_requests(path)
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps([ROW]))
    with pytest.raises(ValueError, match="expected an object of tag"):
        read_requests(path)
