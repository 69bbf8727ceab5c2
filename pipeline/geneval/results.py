"""Results of a scored folder: a JSON line a picture, in the published program's fields and more.

In:    samples with their readings; or such lines, to be judged again without a model.
Out:   lines of {"filename", "tag", "prompt", "correct", "reason", "metadata", "details"} as
       published (metadata and details are JSON inside a text), which `summary_scores.py` reads,
       and {"category", "judge", "sha256", "margins", "detections", "colors"}.
Rerun: a picture whose bytes, prompt and judge are those of a line is not looked at again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.geneval.prompts import Request, json_of, parse
from pipeline.geneval.readings import Reading, rows
from pipeline.geneval.rules import PUBLISHED, Outcome, Thresholds
from pipeline.significance import MEAN, Interval, Prompts, Right, mean_interval, share_interval


@dataclass(frozen=True)
class Result:
    """One picture's line."""

    filename: str  # in its folder: 00000/samples/0000.png
    request: Request
    reading: Reading
    outcome: Outcome
    judge: str = ""  # the weights that read the picture
    sha256: str = ""  # of the picture's file
    thresholds: Thresholds = PUBLISHED

    @staticmethod
    def of(
        filename: str, request: Request, reading: Reading, judge: str = "", sha256: str = ""
    ) -> "Result":
        return Result(filename, request, reading, reading.outcome(request), judge, sha256)

    def again(self, thresholds: Thresholds) -> "Result":
        """The same reading under other thresholds."""
        outcome = self.reading.outcome(self.request, thresholds)
        return replace(self, outcome=outcome, thresholds=thresholds)

    def to_json(self) -> dict[str, Any]:
        chosen = self.reading.chosen(self.request, self.thresholds)
        return {
            "filename": self.filename,
            "tag": self.request.tag,
            "prompt": self.request.prompt,
            "correct": self.outcome.correct,
            "reason": "" if self.outcome.correct else self.outcome.words,
            "metadata": json.dumps(dict(self.request.row)),
            "details": json.dumps({name: rows(boxes) for name, boxes in chosen.items()}),
            "category": self.outcome.reason,
            "judge": self.judge,
            "sha256": self.sha256,
            **self.reading.record(self.request, self.thresholds),
        }

    @staticmethod
    def from_json(value: Any, place: str) -> "Result":
        """Of a line of ours, or of any that has `metadata` and `detections`."""
        if not isinstance(value, dict) or not {"metadata", "detections"} <= set(value):
            raise ValueError(f"{place}: expected an object with metadata and detections")
        metadata = value["metadata"]
        request = parse(json_of(metadata, place) if isinstance(metadata, str) else metadata, place)
        reading = Reading.from_json(value, place)
        texts = (str(value.get(key, "")) for key in ("judge", "sha256"))
        return Result.of(str(value.get("filename", place)), request, reading, *texts)


def read_results(path: Path) -> list[Result]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open(encoding="utf-8") as lines:
        return [_read(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def read_unfinished(path: Path) -> list[Result]:
    """The whole lines of a file whose writer may have been killed in its last one."""
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").split("\n")[:-1]
    return [_read(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def _read(line: str, place: str) -> Result:
    return Result.from_json(json_of(line, place), place)


def line_of(result: Result) -> str:
    return json.dumps(result.to_json()) + "\n"


def write_results(path: Path, results: Iterable[Result]) -> None:
    """The file appears by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.new")
    partial.write_text("".join(map(line_of, results)), encoding="utf-8")
    partial.replace(path)


# --- the score ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    tasks: Mapping[str, Interval]  # with the mean over them last: GenEval's overall score
    pictures: Interval  # share of all pictures
    prompts: Interval  # share of prompts with at least one right picture


def summarise(results: Sequence[Result]) -> Summary:
    """The published score with its intervals."""
    if not results:
        raise ValueError("no results to summarise")
    by_task = right_by_task(results)
    tasks = {task: share_interval(*answers) for task, answers in by_task.items()}
    right = np.concatenate([answers[0] for answers in by_task.values()])
    prompts = np.concatenate([answers[1] for answers in by_task.values()])
    different = np.unique(prompts)
    best = np.array([right[prompts == prompt].any() for prompt in different])
    return Summary(
        {**tasks, MEAN: mean_interval(list(tasks.values()))},
        share_interval(right, prompts),
        share_interval(best, different),
    )


def right_by_task(results: Sequence[Result]) -> dict[str, tuple[Right, Prompts]]:
    """For each tag which pictures are right, and the number of each one's prompt."""
    numbers: dict[str, int] = {}
    found: dict[str, tuple[list[bool], list[int]]] = {}
    for result in results:
        # As published: pictures are of one prompt where their rows are the same.
        row = json.dumps(dict(result.request.row), sort_keys=True)
        right, prompts = found.setdefault(result.request.tag, ([], []))
        right.append(result.outcome.correct)
        prompts.append(numbers.setdefault(row, len(numbers)))
    return {tag: (np.array(right), np.array(prompts)) for tag, (right, prompts) in found.items()}
