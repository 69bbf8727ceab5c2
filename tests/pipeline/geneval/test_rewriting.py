"""Prompts in longer words: asked once, kept, and read by the evaluator."""

import json
from pathlib import Path

import pytest

from pipeline.config import RewriterConfig
from pipeline.evaluators.geneval import read_rewritten
from pipeline.geneval.rewriting import rewrite
from tests.pipeline.test_rewriter import MORE, Server, server

__all__ = ["server"]  # a fixture
PROMPTS = ["a photo of a dog", "a photo of two clocks", "a photo of a dog"]


@pytest.fixture
def config(server: Server) -> RewriterConfig:
    return RewriterConfig(model="writer", endpoints=(server.endpoint,))


def test_each_prompt_is_asked_once_and_read_by_the_evaluator(
    server: Server, config: RewriterConfig, tmp_path: Path
) -> None:
    out = tmp_path / "rewritten.jsonl"
    assert rewrite(PROMPTS, config, out) == (2, 2)
    assert rewrite([*PROMPTS, "a photo of a tv"], config, out) == (3, 3)
    assert len(server.asked) == 3
    assert read_rewritten(out, PROMPTS) == [f"{prompt} {MORE}" for prompt in PROMPTS]


def test_a_prompt_whose_answer_lost_a_word_stays_as_it_is(
    server: Server, config: RewriterConfig, tmp_path: Path
) -> None:
    answer = {"choices": [{"message": {"content": json.dumps({"caption": f"a cat {MORE}"})}}]}
    server.instead = [(200, json.dumps(answer))]
    out = tmp_path / "rewritten.jsonl"
    assert rewrite(PROMPTS[1:2], config, out) == (1, 0)
    assert read_rewritten(out, PROMPTS[1:2]) == PROMPTS[1:2]
