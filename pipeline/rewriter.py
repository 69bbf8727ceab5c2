"""The rewriter: a language model behind OpenAI-format servers lengthens short captions.

In:    captions, one request each, many in flight, the servers in turn.
Out:   a longer caption for each, or None where the answer is none: too short or too long, or
       without the words that the caption is about. Servers that are busy, silent or broken are
       asked again until patience ends; then, and where one refuses, it is an exception.
Rerun: temperature 0 and a fixed seed, as reproducible as the server is.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import BaseModel

from pipeline.concepts import concepts
from pipeline.config import RewriterConfig
from pipeline.judges.answers import said
from pipeline.judges.servers import Servers
from pipeline.model_servers import unserved
from pipeline.wording import essence, normalise

MIN_COMMON = 0.6  # of the caption's words; the concepts among them must all stay
PROMPT = """Rewrite a short caption of a picture as one longer caption, 25 to {max_words} words, \
for a text-to-image model. Keep every object, number, colour and position that it names, in its \
own words, and contradict none. Add what a viewer would see: surroundings, materials, light, \
composition, style. No names of people or brands, no text in the picture, no remarks.
Caption: {caption}
Answer with JSON: {{"caption": "..."}}"""


class Answer(BaseModel):
    caption: str


class Rewriter:
    def __init__(self, config: RewriterConfig, first_wait: float = 1.0) -> None:
        self.config = config
        asked = PROMPT + json.dumps(Answer.model_json_schema(), sort_keys=True)
        self.revision = f"prompt-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
        self.servers = Servers(config, partial(said, mode="scores"), first_wait)

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
        return parse_answer(self.servers.ask(json.dumps(request).encode()))


def parse_answer(content: str) -> str:
    """The caption in what the model said, in normal form; "" where there is none."""
    try:
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
    return unserved("captions.rewriter", config, config.model, lambda _: start)
