"""Lines of results: the published fields, the published score, and judging again."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.geneval.prompts import parse
from pipeline.geneval.readings import Reading
from pipeline.geneval.results import (
    Result,
    line_of,
    read_results,
    read_unfinished,
    right_by_task,
    summarise,
    write_results,
)
from pipeline.geneval.rules import Thresholds


def result(prompt: int, picture: int, score: float, tag: str = "single_object") -> Result:
    row = {"tag": tag, "include": [{"class": "dog", "count": 1}], "prompt": f"a dog {prompt}"}
    boxes = {"dog": np.array([[0, 0, 9, 9, score], [1, 1, 5, 5, 0.01]], np.float32)}
    filename = f"{prompt:05d}/samples/{picture:04d}.png"
    return Result.of(filename, parse(row, "row"), Reading(boxes), "detector@1 clip@2", "ab" * 32)


def test_a_line_has_the_published_fields_and_reads_back() -> None:
    line = json.loads(line_of(result(3, 1, 0.5)))
    published = ("filename", "tag", "prompt", "correct", "reason", "metadata", "details")
    assert tuple(line)[:7] == published
    assert json.loads(line["metadata"])["prompt"] == "a dog 3"
    assert json.loads(line["details"]) == {"dog": [[0.0, 0.0, 9.0, 9.0, 0.5]]}
    again = Result.from_json(line, "line")
    assert line_of(again) == line_of(result(3, 1, 0.5))


def test_other_thresholds_judge_the_same_line_again() -> None:
    line = json.loads(line_of(result(0, 0, 0.5).again(Thresholds(score=0.6))))
    assert (line["correct"], line["reason"], line["category"]) == (
        False,
        "no dog",
        "missing object",
    )
    assert line["details"] == "{}"
    assert line["margins"][0]["margin"] == pytest.approx(-0.1)


def test_the_score_is_the_mean_of_the_tags_and_not_of_the_pictures() -> None:
    results = [result(0, n, 0.9) for n in range(4)] + [result(1, n, 0.1) for n in range(4)]
    results += [result(2, n, [0.9, 0.1][n % 2], "colors") for n in range(2)]
    told = summarise(results)
    assert told.tasks["single_object"].share == 0.5
    assert told.tasks["colors"].share == 0.5
    assert told.tasks["mean"].share == 0.5
    assert told.pictures.share == 0.5
    assert told.prompts.share == pytest.approx(2 / 3)
    assert list(told.tasks)[-1] == "mean"
    assert told.tasks["mean"].low < 0.5 < told.tasks["mean"].high


def test_pictures_are_of_one_prompt_where_their_rows_are_the_same() -> None:
    right, prompts = right_by_task([result(5, 0, 0.9), result(5, 1, 0.1), result(7, 0, 0.9)])[
        "single_object"
    ]
    assert right.tolist() == [True, False, True]
    assert prompts.tolist() == [0, 0, 1]


def test_a_file_is_written_whole_and_a_torn_one_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "out" / "results.jsonl"
    write_results(path, [result(n, 0, 0.5) for n in range(3)])
    assert [each.filename for each in read_results(path)] == [
        f"{n:05d}/samples/0000.png" for n in range(3)
    ]
    path.write_text(path.read_text()[:-40])
    assert len(read_unfinished(path)) == 2
    with pytest.raises(ValueError, match=r"results\.jsonl:3: not JSON"):
        read_results(path)
    assert read_unfinished(tmp_path / "none") == []


def test_lines_without_detections_and_no_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "official.jsonl").write_text(json.dumps({"metadata": "{}", "correct": True}) + "\n")
    with pytest.raises(ValueError, match="expected an object with metadata and detections"):
        read_results(tmp_path / "official.jsonl")
    with pytest.raises(ValueError, match="no such file"):
        read_results(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="no results to summarise"):
        summarise([])
