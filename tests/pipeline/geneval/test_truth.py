"""All published prompts with pictures of which it is known whether they are right."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.geneval.prompts import parse, read_requests
from pipeline.geneval.rules import decide
from tests.pipeline.geneval.truth import made

PUBLISHED = Path(os.environ.get("LIGHTGEN_DATA", "../shared/data")) / "geneval"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published prompts")
def test_every_picture_of_the_published_prompts_is_judged_as_it_was_made() -> None:
    rng = np.random.default_rng(0)
    requests = read_requests(PUBLISHED / "evaluation_metadata.jsonl")
    pictures = [made(request, rng) for request in requests for _ in range(4)]
    assert len(pictures) == 2212
    wrong = [
        (picture.request.prompt, outcome.words)
        for picture in pictures
        if (outcome := decide(picture.request, picture.detections, picture.colours)).correct
        != (not picture.fault)
    ]
    assert wrong == []
    assert 0.4 < np.mean([bool(picture.fault) for picture in pictures]) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_pictures_of_one_prompt_of_each_kind_are_judged_as_they_were_made(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dog, cat = ({"class": name, "count": 1} for name in ("dog", "cat"))
    three, four = ({"class": "dog", "count": count} for count in (3, 4))
    rows = [
        {"tag": "counting", "include": [three], "exclude": [four]},
        {"tag": "color_attr", "include": [dog | {"color": "red"}, cat | {"color": "blue"}]},
        {"tag": "position", "include": [dog, cat | {"position": ["above", 0]}]},
    ]
    for row in rows:
        request = parse({**row, "prompt": "p"}, "row")
        for _ in range(60):
            picture = made(request, rng)
            outcome = decide(request, picture.detections, picture.colours)
            assert outcome.correct == (not picture.fault), (picture, outcome)
