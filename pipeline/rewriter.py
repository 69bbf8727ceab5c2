"""The rewriter: a language model behind OpenAI-format servers lengthens short captions.

In:    captions, one request each, many in flight, the servers in turn.
Out:   a longer caption for each, or None where the answer is none: too short or too long, or
       without the words that the caption is about. A server that stays silent after the retries
       is an exception.
Rerun: temperature 0 and a fixed seed, as reproducible as the server is.
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from pydantic import BaseModel, Field
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipeline.concepts import concepts
from pipeline.config import RewriterConfig
from pipeline.model_servers import unserved
from pipeline.wording import essence, normalise

MIN_COMMON = 0.6  # of the caption's words; the concepts among them must all stay
MAX_SHOWN = 300  # characters of an answer in an error
PROMPT = """Rewrite a short caption of a picture as one longer caption, 25 to {max_words} words, \
for a text-to-image model. Keep every object, number, colour and position that it names, in its \
own words, and contradict none. Add what a viewer would see: surroundings, materials, light, \
composition, style. No names of people or brands, no text in the picture, no remarks.
Caption: {caption}
Answer with JSON: {{"caption": "..."}}"""


class Answer(BaseModel):
    caption: str


class Message(BaseModel):
    content: str


class Choice(BaseModel):
    message: Message


class Completion(BaseModel):
    """As much of the OpenAI format as is read here."""

    choices: list[Choice] = Field(min_length=1)


class BusyError(Exception):
    """The server is busy or broken: worth another try."""


class Rewriter:
    def __init__(self, config: RewriterConfig, retry_seconds: float = 1.0) -> None:
        self.config = config
        asked = PROMPT + json.dumps(Answer.model_json_schema(), sort_keys=True)
        self.revision = f"prompt-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
        self.endpoints = itertools.cycle(config.endpoints)
        self.retry_seconds = retry_seconds
        self.client = httpx.Client(
            timeout=config.timeout_seconds,
            limits=httpx.Limits(max_connections=config.requests_in_flight),
            trust_env=False,  # the servers are ours: no proxy stands between
        )

    def chooses(self, caption_id: str) -> bool:
        """The same captions every time, `share` of all."""
        digest = hashlib.sha256(f"rewrite:{caption_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.config.share * 2**64

    def rewrite(self, captions: Sequence[str], max_characters: int) -> list[str | None]:
        with ThreadPoolExecutor(self.config.requests_in_flight) as threads:
            answers = threads.map(self._rewrite_one, captions)
            return [
                rewritten if fits(caption, rewritten, self.config, max_characters) else None
                for caption, rewritten in zip(captions, answers, strict=True)
            ]

    def _rewrite_one(self, caption: str) -> str:
        content = PROMPT.format(max_words=self.config.max_words, caption=caption)
        request = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": 8 * self.config.max_words,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "caption", "schema": Answer.model_json_schema()},
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
            raise BusyError(f"{endpoint}: {response.status_code} {response.text[:MAX_SHOWN]}")
        if response.is_error:
            raise ValueError(
                f"{endpoint} refused the request: {response.status_code} "
                f"{response.text[:MAX_SHOWN]}"
            )
        return response.text


def parse_answer(body: str) -> str:
    """The caption in a chat completion, in normal form; "" where there is none."""
    try:
        content = Completion.model_validate_json(body).choices[0].message.content
        start, stop = content.find("{"), content.rfind("}") + 1  # inside a fence or after words
        return normalise(Answer.model_validate_json(content[start:stop]).caption)
    except ValueError:
        return ""


def fits(caption: str, rewritten: str, config: RewriterConfig, max_characters: int) -> bool:
    """Longer, not too long, and still about the same."""
    before, after = essence(caption).decode().split(), essence(rewritten).decode().split()
    if not len(before) < len(after) <= config.max_words or len(rewritten) > max_characters:
        return False
    common = len(set(before) & set(after)) / max(1, len(set(before)))
    return common >= MIN_COMMON and set(concepts(before)) <= set(concepts(after))


def missing_endpoints(config: RewriterConfig) -> list[str]:
    """One sentence for each server that does not answer or does not serve the model."""
    start = f"vllm serve {config.model}"
    return unserved("captions.rewriter", config.endpoints, config.model, lambda _: start)
