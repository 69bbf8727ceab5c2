"""GenEval: 553 prompts of six tasks, judged by Mask2Former and CLIP by the published rules.

In:    the published prompts, raw or rewritten; then pictures with their prompts.
Out:   right or wrong with a reason; and what was seen as JSON, so that other thresholds or another
       program judge the same pictures without a model: {"metadata", "margins", "detections",
       "colors"} (see `pipeline.geneval.readings`).

Raw and rewritten prompts are two evaluators, `geneval` and `geneval_rewritten`, and never share a
mean: rewriting alone moves a model from 0.17 to 0.73.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.config import GenEvalEvaluator
from pipeline.encoders import weights_identity
from pipeline.evaluators import Prompt, Score
from pipeline.geneval.prompts import Request, read_requests
from pipeline.geneval.readings import Reading
from pipeline.geneval.rules import num_extra
from pipeline.tables import digest

if TYPE_CHECKING:  # its models are loaded by the first picture
    from pipeline.geneval.scoring import Scorer

RAW, REWRITTEN = "geneval", "geneval_rewritten"
PLACE = "evaluation.evaluators"


class GenEvalScorer:
    def __init__(self, config: GenEvalEvaluator) -> None:
        self.config = config
        self.name = RAW if config.rewritten is None else REWRITTEN
        self.images_per_prompt = config.images_per_prompt
        self.requests = read_requests(Path(config.prompts))

    def prompts(self) -> list[Prompt]:
        texts = [request.prompt for request in self.requests]
        if self.config.rewritten is not None:
            texts = read_rewritten(Path(self.config.rewritten), texts)
        return [
            Prompt(index, request.tag, text)
            for index, (request, text) in enumerate(zip(self.requests, texts, strict=True))
        ]

    @property
    def judge(self) -> str:
        return self.scorer.name

    @cached_property
    def scorer(self) -> "Scorer":
        """Both models, on the GPU where there is one."""
        import torch

        from pipeline.clip_models import Clip
        from pipeline.geneval.detector import Detector
        from pipeline.geneval.scoring import Scorer

        config, device = self.config, "cuda" if torch.cuda.is_available() else "cpu"
        detector = Detector(
            config.detector,
            config.detector_revision,
            device=device,
            batch_size=config.batch_size,
            place=f"{PLACE}.detector",
        )
        clip = Clip(config.clip, config.clip_revision, device=device, place=f"{PLACE}.clip")
        return Scorer(detector, clip)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[Score]:
        requests = [self.requests[prompt.index] for prompt in prompts]
        readings = self.scorer.read(images, requests)
        return [_score(*pair) for pair in zip(requests, readings, strict=True)]


def _score(request: Request, reading: Reading) -> Score:
    outcome = reading.outcome(request)
    details = {"metadata": dict(request.row), **reading.record(request)}
    extra = num_extra(request, reading.boxes)
    return Score(outcome.correct, outcome.reason, extra, outcome.words, json.dumps(details))


def read_rewritten(path: Path, prompts: Sequence[str]) -> list[str]:
    """The rewritten form of each prompt, from JSON lines of `prompt` and `rewritten`."""
    if not path.is_file():
        raise ValueError(f"{PLACE}.rewritten: {path} is not there")
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            known[row["prompt"]] = row["rewritten"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: expected an object with prompt and rewritten, got {line:.80}"
            ) from error
    lost = [prompt for prompt in prompts if not known.get(prompt)]
    if lost:
        raise ValueError(
            f"{path}: {len(lost)} of {len(prompts)} prompts are not rewritten, such as {lost[0]!r}"
        )
    return [known[prompt] for prompt in prompts]


def identity_of(config: GenEvalEvaluator) -> dict[str, object]:
    """Prompts by their content, weights by theirs; how many pictures are seen at once is not in."""
    return {
        "kind": config.kind,
        "prompts": digest([dict(each.row) for each in read_requests(Path(config.prompts))]),
        "rewritten": config.rewritten is not None,  # the texts are of the orders
        "detector": weights_identity(config.detector, config.detector_revision),
        "clip": weights_identity(config.clip, config.clip_revision),
    }


def missing_of(config: GenEvalEvaluator) -> list[str]:
    from pipeline.preflight import missing_weights  # which asks the evaluators itself

    lacking = [
        f"{PLACE}.{place}: {file} is not there"
        for place, file in (("prompts", config.prompts), ("rewritten", config.rewritten))
        if file and not Path(file).is_file()
    ]
    if find_spec("open_clip") is None:
        lacking.append(f"{PLACE}: kind geneval needs open_clip; pip install -e '.[clip]'")
    weights = (
        missing_weights(f"{PLACE}.detector", config.detector, config.detector_revision),
        missing_weights(f"{PLACE}.clip", config.clip, config.clip_revision),
    )
    return lacking + [sentence for sentence in weights if sentence]
