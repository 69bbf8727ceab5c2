"""What a training is asked, and its answers: right or wrong of each picture.

In:    averaged weights; how many prompts a task and pictures a prompt.
Out:   rows of task, prompt, right, exact, kept as `answers.json` beside the training's weights.
Rerun: draws and judges again; prompts and seeds are the same for every training.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.checkpoints import TrainingFolder
from pipeline.config import RunConfig
from pipeline.parallel import Weights
from pipeline.shapes.detector import detect
from pipeline.shapes.grammar import TASKS, parse
from pipeline.significance import Prompts, Right
from pipeline.watching import Watcher

ANSWERS = "answers.json"


class Asked(NamedTuple):
    """What a training is asked: prompts a task, pictures a prompt, steps between points."""

    prompts: int
    images: int = 1
    every: int = 0
    tasks: tuple[str, ...] = ()  # alone trained on and asked; (): all


def answered(
    config: RunConfig, place: TrainingFolder, average: Weights, asked: Asked
) -> list[dict[str, Any]]:
    """Right or wrong of each picture; prompts and seeds are the same for every training."""
    assert config.student is not None
    watcher = Watcher.build(config, place.path, torch.device(config.device), asked.prompts)
    tasks = asked.tasks or TASKS
    wanted = [row for row, prompt in enumerate(watcher.prompts) if prompt.task in tasks]
    wanted *= asked.images
    prompts = [watcher.prompts[row] for row in wanted]
    states, lengths = watcher.states[wanted], watcher.lengths[wanted]
    watcher = replace(watcher, prompts=prompts, states=states, lengths=lengths)
    pictures = watcher.draw(average, config.student.phases[0].image_size)
    images = [Image.fromarray(each) for each in pictures]
    scores = watcher.evaluator.score(images, prompts)
    return [
        {
            "task": prompt.task,
            "prompt": prompt.text,
            "right": bool(score.correct),
            "exact": bool(score.correct) and len(detect(picture)) == asked_objects(prompt.text),
        }
        for prompt, score, picture in zip(prompts, scores, images, strict=True)
    ]


def asked_objects(caption: str) -> int:
    """Objects that a caption names. GenEval's rules forgive more of them but in counting, so that
    a picture full of objects is often right; `exact` does not."""
    spec = parse(caption)
    assert spec is not None, caption
    return sum(thing.count for thing in spec.things)


def answers_of(
    out: Path, name: str, measure: str = "right"
) -> tuple[dict[str, Right], dict[str, Prompts]]:
    """Right or wrong by task, or exact or not, and which prompt each picture is of."""
    place = out / "checkpoints" / f"student-{name}" / ANSWERS
    if not place.is_file():
        raise ValueError(f"{place} is not there: train {name} by tests.benchmarks.recipes first")
    rows: list[dict[str, Any]] = json.loads(place.read_text("utf-8"))
    right: dict[str, Right] = {}
    prompts: dict[str, Prompts] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        numbers = {text: n for n, text in enumerate(dict.fromkeys(r["prompt"] for r in mine))}
        right[task] = np.array([row[measure] for row in mine])
        prompts[task] = np.array([numbers[row["prompt"]] for row in mine])
    return right, prompts
