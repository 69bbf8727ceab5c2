"""A Qwen-VL model as judge, behind servers that speak the OpenAI format (vLLM).

In:    pictures and captions. Workers shrink and encode the pictures; as many requests as the run
       allows are in flight over all calls together, and a call waits for its own.
Out:   one verdict each. An answer that cannot be read, a picture that the server refuses and one
       that nobody answers are verdicts with that reason and nought for both scores; too many of
       them are an exception, before a table is filled with them.
Rerun: temperature 0 and a fixed seed, as reproducible as the server is; what was answered before
       is read from the memo and not asked again.
"""

import base64
import io
import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from pipeline.config import QwenJudge
from pipeline.judges import NO_ANSWER, REFUSED, UNPARSABLE, Verdict
from pipeline.judges.answers import NoAnswerError, clean, said, verdict_of
from pipeline.judges.memo import Memo
from pipeline.judges.questions import Question, digest, questions
from pipeline.judges.servers import RefusedError, Servers

JPEG_QUALITY = 92
FEWEST_SEEN = 20  # pictures before a rate means something
UNUSABLE = (UNPARSABLE, NO_ANSWER, REFUSED)


class JudgeFailingError(RuntimeError):
    """So many pictures have no usable answer that to go on would only fill a table with them."""


class Tally:
    """Pictures seen and those without a usable answer; shared by all threads."""

    def __init__(self, limit: float) -> None:
        self.limit, self.seen, self.unusable = limit, 0, 0
        self.last = ""
        self.lock = threading.Lock()

    @property
    def over(self) -> bool:
        return self.unusable > self.limit * max(self.seen, FEWEST_SEEN)

    def add(self, verdict: Verdict) -> None:
        with self.lock:
            self.seen += 1
            if verdict.reason in UNUSABLE:
                self.unusable += 1
                self.last = f"{verdict.reason}: {verdict.words}"

    def check(self) -> None:
        if self.over:
            raise JudgeFailingError(
                f"{self.unusable} of {self.seen} pictures have no usable answer, more than "
                f"verdicts.judge.max_error_rate {self.limit:g} allows; the last: {self.last}"
            )


class QwenVlJudge:
    def __init__(
        self, config: QwenJudge, memo: Path | None = None, first_wait: float = 1.0
    ) -> None:
        self.config, self.first_wait = config, first_wait
        self.name = config.model
        asked = f"{config.mode}-v{config.question_version}"
        weights = f"{config.revision} " if config.revision else ""
        self.revision = f"{weights}{asked}-{digest(config.mode, config.question_version)}"
        self.in_flight = config.requests_in_flight
        self.questions = questions(config.mode, config.question_version)
        self.memo = Memo(memo) if memo else None
        self.workers = threading.BoundedSemaphore(config.workers)
        self.threads = ThreadPoolExecutor(config.requests_in_flight)
        self._begin()

    def _begin(self) -> None:
        self.tally, self.servers = Tally(self.config.max_error_rate), self._servers()

    def _servers(self) -> Servers:
        return Servers(self.config, partial(said, mode=self.config.mode), self.first_wait)

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} pictures with {len(captions)} captions")
        tally, servers = self.tally, self.servers
        asked = [
            self.threads.submit(self._judge_one, image, caption, tally, servers)
            for image, caption in zip(images, captions, strict=True)
        ]
        try:
            return [one.result() for one in asked]
        except JudgeFailingError:
            servers.stop.set()  # those that wait for a server do not wait on
            if self.tally is tally:
                self._begin()  # a retry starts with a clean slate
            raise
        finally:
            for one in asked:
                one.cancel()

    def _judge_one(
        self, image: Image.Image, caption: str, tally: Tally, servers: Servers
    ) -> Verdict:
        tally.check()
        with self.workers:
            url = data_url(image, self.config.max_pixels)
        try:
            answers = [
                self._answer(self.request(question, caption, url), servers)
                for question in self.questions
            ]
            verdict = verdict_of(answers, self.config.mode)
        except NoAnswerError as error:
            verdict = Verdict(0.0, 0.0, clean(str(error)), NO_ANSWER)
        except RefusedError as error:
            verdict = Verdict(0.0, 0.0, clean(str(error)), REFUSED)
        tally.add(verdict)
        tally.check()
        return verdict

    def _answer(self, request: bytes, servers: Servers) -> str:
        if self.memo is None:
            return servers.ask(request)
        asked = f"{self.revision}\n".encode() + request  # other weights may answer otherwise
        known = self.memo.get(asked)
        if known is None:
            known = servers.ask(request)
            self.memo.put(asked, known)
        return known

    def request(self, question: Question, caption: str, url: str) -> bytes:
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": question.about(caption)},
        ]
        values = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": self.config.max_tokens,
            **question.fields,
        }
        return json.dumps(values).encode()


def data_url(image: Image.Image, max_pixels: int) -> str:
    """The picture within the pixel budget, as a JPEG inside a URL."""
    scale = min(1.0, math.sqrt(max_pixels / (image.width * image.height)))
    size = max(1, int(image.width * scale)), max(1, int(image.height * scale))
    picture = image.convert("RGB")
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
