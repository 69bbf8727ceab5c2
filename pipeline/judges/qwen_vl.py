"""A Qwen-VL model as judge, behind servers that speak the OpenAI format (vLLM).

In:    pictures and captions; one request each, many in flight, the servers in turn.
Out:   one verdict each. An answer that is not the asked JSON is a verdict of its own, with
       nought for both scores; a server that stays silent after the retries is an exception.
Rerun: temperature 0 and a fixed seed, as reproducible as the server is.
"""

import base64
import hashlib
import io
import itertools
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import httpx
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipeline.config import QwenJudge
from pipeline.judges import Verdict

UNPARSABLE = "unparsable answer"
MAX_TOKENS = 400
MAX_WORDS = 300  # characters of an answer that are kept
REACH_SECONDS = 3.0
PROMPT = """You check pictures for a text-to-image data set. The caption is:

{caption}

First list what the caption asks for and the picture lacks or shows wrongly (objects, counts, \
colours, positions), then visible artefacts (blur, deformed parts, garbled text). Then score:
alignment, 0 to 10: how completely the picture shows the caption;
quality, 0 to 10: how clean and pleasing the picture is, whatever it shows.
Answer with JSON: {{"missing": [...], "artefacts": [...], "alignment": n, "quality": n}}"""

Score = Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)]


class Answer(BaseModel):
    """What the model is asked for; the lists come first, so that the scores follow from them."""

    missing: list[str]
    artefacts: list[str]
    alignment: Score
    quality: Score


class Message(BaseModel):
    content: str


class Choice(BaseModel):
    message: Message


class Completion(BaseModel):
    """As much of the OpenAI format as is read here."""

    choices: list[Choice] = Field(min_length=1)


class Model(BaseModel):
    id: str


class Models(BaseModel):
    data: list[Model]


class BusyError(Exception):
    """The server is busy or broken: worth another try."""


class QwenVlJudge:
    def __init__(self, config: QwenJudge, retry_seconds: float = 1.0) -> None:
        self.config = config
        self.name = config.model
        asked = PROMPT + json.dumps(Answer.model_json_schema(), sort_keys=True)
        self.revision = f"prompt-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
        self.endpoints = itertools.cycle(config.endpoints)
        self.retry_seconds = retry_seconds
        self.client = httpx.Client(
            timeout=config.timeout_seconds,
            limits=httpx.Limits(max_connections=config.requests_in_flight),
            trust_env=False,  # the servers are ours: no proxy stands between
        )

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} pictures with {len(captions)} captions")
        with ThreadPoolExecutor(self.config.requests_in_flight) as threads:
            return list(threads.map(self._judge_one, images, captions))

    def _judge_one(self, image: Image.Image, caption: str) -> Verdict:
        request = {
            "model": self.config.model,
            "messages": [_message(image, caption, self.config.max_pixels)],
            "temperature": 0,
            "seed": 0,
            "max_tokens": MAX_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": Answer.model_json_schema()},
            },
        }
        retries = Retrying(
            retry=retry_if_exception(lambda e: isinstance(e, BusyError | httpx.TransportError)),
            stop=stop_after_attempt(2 + 2 * len(self.config.endpoints)),
            wait=wait_exponential(self.retry_seconds, max=30),
            reraise=True,
        )
        return parse_answer(retries(self._ask, request))

    def _ask(self, request: dict[str, object]) -> str:
        """Each try goes to the next server."""
        endpoint = next(self.endpoints)
        response = self.client.post(f"{endpoint.rstrip('/')}/chat/completions", json=request)
        if response.status_code == 429 or response.status_code >= 500:
            raise BusyError(f"{endpoint}: {response.status_code} {response.text[:MAX_WORDS]}")
        if response.is_error:
            raise ValueError(
                f"{endpoint} refused the request: {response.status_code} "
                f"{response.text[:MAX_WORDS]}"
            )
        return response.text


def parse_answer(body: str) -> Verdict:
    """The verdict in a chat completion, or one that says that it cannot be read."""
    try:
        content = Completion.model_validate_json(body).choices[0].message.content
        start, stop = content.find("{"), content.rfind("}") + 1  # inside a fence or after words
        answer = Answer.model_validate_json(content[start:stop])
    except ValueError:
        return Verdict(0.0, 0.0, _clean(body), UNPARSABLE)
    alignment, quality = answer.alignment / 10, answer.quality / 10
    found = [f"lacks {what}" for what in answer.missing] + answer.artefacts
    return Verdict(alignment, quality, _clean("; ".join(found)) or "nothing wrong", _reason(answer))


def _reason(answer: Answer) -> str:
    if answer.missing:
        return "missing or wrong content"
    if answer.artefacts:
        return "artefacts"
    if answer.alignment < 5:
        return "poor alignment"
    return "poor quality" if answer.quality < 5 else ""


def _clean(text: str) -> str:
    """Short enough for a table, and encodable whatever the server sent."""
    return text[:MAX_WORDS].encode("utf-8", "replace").decode("utf-8")


def _message(image: Image.Image, caption: str, max_pixels: int) -> dict[str, object]:
    scale = min(1.0, math.sqrt(max_pixels / (image.width * image.height)))
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    jpeg = io.BytesIO()
    picture = image.convert("RGB")
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    picture.save(jpeg, "JPEG", quality=92, subsampling=0)
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    return {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": PROMPT.format(caption=caption)},
        ],
    }


def missing_endpoints(config: QwenJudge) -> list[str]:
    """One sentence for each server that does not answer or does not serve the model."""
    return [
        wrong for endpoint in config.endpoints if (wrong := _wrong_with(endpoint, config.model))
    ]


def _wrong_with(endpoint: str, model: str) -> str:
    try:
        response = httpx.get(
            f"{endpoint.rstrip('/')}/models", timeout=REACH_SECONDS, trust_env=False
        )
        served = [one.id for one in Models.model_validate_json(response.text).data]
    except (httpx.HTTPError, httpx.InvalidURL, ValidationError) as error:
        host, _, port = endpoint.split("//")[-1].split("/")[0].partition(":")
        return (
            f"verdicts.judge.endpoints: {endpoint} does not answer ({type(error).__name__}). "
            f"Start it, in an environment of its own, with: vllm serve {model} "
            f"--host {host} --port {port or 80}"
        )
    if model in served:
        return ""
    return f"verdicts.judge.model: {endpoint} serves {served}, not {model!r}"
