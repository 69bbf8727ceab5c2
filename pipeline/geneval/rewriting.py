"""GenEval's prompts in longer words, by a language model: the prompts of `geneval_rewritten`.

In:    the published prompts; a model behind OpenAI-format servers (`pipeline.rewriter`).
Out:   JSON lines of prompt and rewritten, which `evaluation.evaluators` takes as `rewritten`. A
       prompt whose answer lost a word that matters stays as it is, and is counted.
Rerun: prompts that the file has are not asked again.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import RewriterConfig
from pipeline.rewriter import Rewriter

AT_ONCE = 64  # prompts between two writings
MAX_CHARACTERS = 2000


def rewrite(prompts: Sequence[str], config: RewriterConfig, out: Path) -> tuple[int, int]:
    """How many prompts the file has then, and how many of them are in longer words."""
    known: dict[str, str] = {}
    if out.is_file():  # written by rename: whole
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        known = {row["prompt"]: row["rewritten"] for row in rows}
    wanted = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
    rewriter = Rewriter(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(wanted), AT_ONCE):
        part = wanted[first : first + AT_ONCE]
        answers = rewriter.rewrite(part, MAX_CHARACTERS)
        known |= {p: a or p for p, a in zip(part, answers, strict=True)}
        _write(out, known)
    return len(known), sum(prompt != text for prompt, text in known.items())


def _write(out: Path, known: dict[str, str]) -> None:
    """The file is replaced by rename."""
    rows = [{"prompt": prompt, "rewritten": text} for prompt, text in known.items()]
    partial = out.with_name(f".{out.name}.new")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    partial.replace(out)
