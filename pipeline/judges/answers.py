"""What a judge's model said, read into a verdict; what cannot be read is a verdict that says so.

In:    a chat completion's body; then the model's own text, or the log probabilities of its first
       token.
Out:   a `Verdict`. Nothing that a server or a model can send raises here but `NoAnswerError`.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from pipeline.judges import UNPARSABLE, Verdict

MAX_WORDS = 300  # characters that a person reads
MAX_ANSWER = 4000  # characters of the raw answer that are kept
MIN_MASS = 0.01  # of yes and no together: below it the model answered something else

Score = Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)]


class NoAnswerError(ValueError):
    """The body is not a chat completion: the server's fault, worth another try."""


class Scores(BaseModel):
    """What is asked for; the findings come first, so that the scores follow from them."""

    missing: list[str]
    artefacts: list[str]
    words: str = ""
    alignment: Score
    quality: Score


class Token(BaseModel):
    token: str
    logprob: float


class FirstToken(BaseModel):
    top_logprobs: list[Token] = []


class Logprobs(BaseModel):
    content: list[FirstToken] | None = None


class Message(BaseModel):
    content: str | None = None


class Choice(BaseModel):
    message: Message
    logprobs: Logprobs | None = None


class Completion(BaseModel):
    """As much of the OpenAI format as is read here."""

    choices: list[Choice] = Field(min_length=1)


TOKENS = TypeAdapter(list[tuple[str, float]])


def said(body: str, mode: str) -> str:
    """The model's answer in a completion: its text, or its first token's log probabilities."""
    try:
        choice = Completion.model_validate_json(body).choices[0]
    except ValueError as error:  # also text that no encoding has
        raise NoAnswerError(f"not a chat completion: {clean(body)!r}") from error
    if mode == "scores":
        return _encodable(choice.message.content or "")
    first = (choice.logprobs and choice.logprobs.content) or [FirstToken()]
    return json.dumps([[one.token, one.logprob] for one in first[0].top_logprobs])


def verdict_of(answers: Sequence[str], mode: str) -> Verdict:
    return scores(answers[0]) if mode == "scores" else yes_no(*answers)


def scores(answer: str) -> Verdict:
    start, stop = answer.find("{"), answer.rfind("}") + 1  # inside a fence or after words
    try:
        # Not strict: grammars of servers let control characters through inside strings.
        found = Scores.model_validate(json.loads(answer[start:stop], strict=False))
    except (ValueError, RecursionError):
        return unparsable(answer)
    alignment, quality = found.alignment / 10, found.quality / 10
    flaws = [f"lacks {what}" for what in found.missing] + found.artefacts
    words = " ".join("; ".join([*flaws, found.words]).strip("; ").split())
    return Verdict(
        alignment, quality, clean(words) or "nothing wrong", _reason(found), _kept(answer)
    )


def _reason(found: Scores) -> str:
    if found.missing:
        return "missing or wrong content"
    if found.artefacts:
        return "artefacts"
    if found.alignment < 5:
        return "poor alignment"
    return "poor quality" if found.quality < 5 else ""


def yes_no(alignment: str, quality: str) -> Verdict:
    """Each score is the share of yes in the first token's mass of yes and no."""
    answer = _kept(f'{{"alignment": {alignment}, "quality": {quality}}}')
    fits, clear = share_of_yes(alignment), share_of_yes(quality)
    if fits is None or clear is None:
        return unparsable(answer)
    reason = "poor alignment" if fits < 0.5 else "poor quality" if clear < 0.5 else ""
    return Verdict(fits, clear, f"yes {fits:.0%}, clean {clear:.0%}", reason, answer)


def share_of_yes(answer: str) -> float | None:
    """None where yes and no have no mass to speak of."""
    try:
        tokens = TOKENS.validate_json(answer)
    except ValueError:
        return None
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        word = token.strip(" \u0120\u2581\n").lower()  # as tokenizers mark a word's beginning
        if word in mass and not math.isnan(logprob):
            mass[word] += math.exp(min(logprob, 0.0))
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total >= MIN_MASS else None


def unparsable(answer: str) -> Verdict:
    return Verdict(0.0, 0.0, clean(answer), UNPARSABLE, _kept(answer))


def clean(text: str) -> str:
    """Short enough for a table, and encodable whatever the server sent."""
    return _encodable(text[:MAX_WORDS])


def _kept(answer: str) -> str:
    return _encodable(answer[:MAX_ANSWER])


def _encodable(text: str) -> str:
    """Half characters, which JSON can spell, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
