"""What a judge is asked: the versioned files of `texts/`, part of the verdicts' fingerprint.

In:    a way of asking (`scores` or `yes_no`) and the version of its files.
Out:   the questions in order, each with the fields of the request that it needs, and their digest.
Rerun: the same files give the same digest; a changed text is a new version, judged anew.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "texts"
BETWEEN = "\n---\n"  # two questions of one file
TOP_TOKENS = 20  # the most that servers give


@dataclass(frozen=True)
class Question:
    text: str  # with {caption}
    fields: dict[str, Any]  # of the request, for the form of its answer

    def about(self, caption: str) -> str:
        """Not `str.format`: the text shows JSON, and a caption may hold braces."""
        return self.text.replace("{caption}", caption)


@cache
def questions(mode: str, version: int) -> tuple[Question, ...]:
    texts = _read(mode, version).split(BETWEEN)
    return tuple(Question(text.strip(), _fields(mode, version)) for text in texts)


def digest(mode: str, version: int) -> str:
    """Eight hex digits over the texts and the form of the answers."""
    asked = [[each.text, each.fields] for each in questions(mode, version)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _read(mode: str, version: int) -> str:
    path = FOLDER / f"{mode}_v{version}.txt"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.txt"))
        raise ValueError(f"verdicts.judge: no questions {path.stem!r}, there are {known}")
    return path.read_text("utf-8")


def _fields(mode: str, version: int) -> dict[str, Any]:
    if mode == "yes_no":
        return {"logprobs": True, "top_logprobs": TOP_TOKENS, "max_tokens": 1}
    schema = json.loads((FOLDER / f"{mode}_v{version}.json").read_text("utf-8"))
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    return {"response_format": form}
