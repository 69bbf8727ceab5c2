"""GenEval's decisions over 2,212 synthetic pictures, against truth and the published program.

    python -m tests.benchmarks.geneval [--data ../shared/data] [--published evaluate_images.py]

Makes detections for all 553 prompts, four pictures each, of which it is known whether they are
right (tests/pipeline/geneval/truth.py), and scores them: the rules alone; as a file of results is
judged again, from JSON and back. With the published program at hand its own functions score the
same detections. Prints a Markdown table: seconds, ratio to the rules alone, agreement.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.geneval.prompts import CLASSES, COLOURS, read_requests
from pipeline.geneval.readings import Colour, Reading
from pipeline.geneval.results import Result, read_results, summarise, write_results
from pipeline.geneval.rules import PUBLISHED, decide
from tests.pipeline.geneval.truth import Made, made

IMAGES_PER_PROMPT = 4


def by_rules(pictures: Sequence[Made]) -> list[bool]:
    return [decide(each.request, each.detections, each.colours).correct for each in pictures]


def by_file(pictures: Sequence[Made]) -> list[bool]:
    """As `python -m pipeline.geneval rescore` does, the file's writing not counted."""
    path = Path(tempfile.mkdtemp()) / "results.jsonl"
    write_results(path, (result_of(number, each) for number, each in enumerate(pictures)))
    started = time.perf_counter()
    results = [result.again(PUBLISHED) for result in read_results(path)]
    summarise(results)
    write_results(path, results)
    seconds["rescored from JSON lines"] = time.perf_counter() - started
    return [result.outcome.correct for result in results]


def result_of(number: int, picture: Made) -> Result:
    colours = {
        name: {n: Colour(tuple(25.0 * (c == own) for c in COLOURS)) for n, own in each.items()}
        for name, each in picture.colours.items()
    }
    filename = f"{number // IMAGES_PER_PROMPT:05d}/samples/{number % IMAGES_PER_PROMPT:04d}.png"
    return Result.of(filename, picture.request, Reading(picture.detections, colours), "synthetic")


def by_published(source: Path) -> Callable[[Sequence[Made]], list[bool]]:
    """The published program's selection and decision, its models replaced by the detections."""
    text = source.read_text("utf-8")
    start, end = text.index("def compute_iou"), text.index("def main(args)")
    names: dict[str, Any] = {"np": np, "json": json, "object_detector": None}
    names |= {"classnames": CLASSES, "COLORS": list(COLOURS), "POSITION_THRESHOLD": 0.1}
    names |= {"THRESHOLD": 0.3, "COUNTING_THRESHOLD": 0.9, "MAX_OBJECTS": 16, "NMS_THRESHOLD": 1.0}
    exec(text[start:end], names)
    now: dict[str, Made] = {}

    def detector(*_: object) -> list[np.ndarray]:
        seen = now["picture"].detections
        return [seen.get(name, np.zeros((0, 5), np.float32)) for name in CLASSES]

    def colours(_: object, objects: Sequence[Any], name: str) -> list[str]:
        boxes, known = now["picture"].detections[name], now["picture"].colours[name]
        return [
            known[next(n for n, b in enumerate(boxes) if (b == box).all())] for box, _ in objects
        ]

    opened = type("Opened", (), {"open": lambda path: path, "exif_transpose": lambda image: image})
    names |= {"inference_detector": detector, "color_classification": colours}
    names |= {"Image": opened, "ImageOps": opened}

    def score(pictures: Sequence[Made]) -> list[bool]:
        answers = []
        for picture in pictures:
            now["picture"] = picture
            answers.append(names["evaluate_image"]("picture", dict(picture.request.row))["correct"])
        return answers

    return score


seconds: dict[str, float] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description="GenEval's decisions, timed.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--published", type=Path, help="the published evaluate_images.py")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    requests = read_requests(args.data / "geneval" / "evaluation_metadata.jsonl")
    pictures = [made(request, rng) for request in requests for _ in range(IMAGES_PER_PROMPT)]
    truth = [not picture.fault for picture in pictures]
    ways = {"the rules alone": by_rules, "rescored from JSON lines": by_file}
    if args.published:
        ways["the published program"] = by_published(args.published)
    print(f"{len(pictures):,} pictures, {sum(map(bool, truth)):,} of them right.\n")
    print("| what | seconds | ratio | agreement with the truth |\n|---|---:|---:|---:|")
    for name, way in ways.items():
        started = time.perf_counter()
        answers = way(pictures)
        seconds.setdefault(name, time.perf_counter() - started)
        agreement = np.mean([one == other for one, other in zip(answers, truth, strict=True)])
        ratio = seconds[name] / seconds["the rules alone"]
        print(f"| {name} | {seconds[name]:.2f} | {ratio:.1f} | {agreement:.2%} |")


if __name__ == "__main__":
    main()
