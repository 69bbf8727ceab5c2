"""A real vLLM on this CPU, serving a small Qwen2-VL of random weights to our judge.

Skipped unless the judge's environment is there: `bash infra/judge/environment.sh`, or
LIGHTGEN_VLLM_PYTHON names another one's Python.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from pipeline.config import QwenJudge
from pipeline.judges import build, missing

ROOT = Path(__file__).parent.parent.parent.parent
PYTHON = Path(os.environ.get("LIGHTGEN_VLLM_PYTHON", ROOT / "infra/judge/.venv/bin/python"))
START_SECONDS = 300

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no environment for vLLM"),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from pipeline.random_models import save_qwen2_vl

    folder = tmp_path_factory.mktemp("vllm")
    save_qwen2_vl(folder / "qwen2_vl")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--served-model-name", "random/qwen2-vl", "--host", "127.0.0.1"]
    options += ["--port", str(port), "--max-model-len", "4096", "--max-num-seqs", "16"]
    log = folder / "server.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [PYTHON, ROOT / "infra/judge/serve.py", folder / "qwen2_vl", *options],
            stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(START_SECONDS):
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        assert server.poll() is None, log.read_text()[-3000:]
        time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def pictures(number: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (64 + n, 96, 3), np.uint8)) for n in range(number)]


def judge_of(endpoint: str, **values: object) -> QwenJudge:
    given = {"model": "random/qwen2-vl", "endpoints": (endpoint,), "max_pixels": 112 * 112}
    return QwenJudge(kind="qwen_vl", **given, **values)


def test_it_judges_through_a_real_server(endpoint: str) -> None:
    config = judge_of(endpoint)
    assert missing(config) == []
    verdicts = build(config).judge(pictures(24), [f"a {n} cat" for n in range(24)])
    for verdict in verdicts:
        answer = json.loads(verdict.answer, strict=False)
        assert set(answer) == {"missing", "artefacts", "words", "alignment", "quality"}
        assert (verdict.alignment, verdict.quality) == (
            answer["alignment"] / 10,
            answer["quality"] / 10,
        )
    assert build(config).judge(pictures(1), ["a 0 cat"]) == verdicts[:1]


def test_first_token_mass_comes_from_a_real_server(endpoint: str) -> None:
    """Random weights spread their mass over all tokens: yes and no have next to none."""
    verdicts = build(judge_of(endpoint, mode="yes_no", max_error_rate=1)).judge(
        pictures(4), ["a cat"] * 4
    )
    for verdict in verdicts:
        answer = json.loads(verdict.answer)
        assert [len(answer[name]) for name in ("alignment", "quality")] == [20, 20]
        assert all(logprob < 0 for name in answer for _, logprob in answer[name])


def test_a_caption_too_long_for_the_model_is_a_row(endpoint: str) -> None:
    long, short = build(judge_of(endpoint)).judge(pictures(2), ["cat " * 5000, "a cat"])
    assert long.reason == "refused by the server"
    assert "400" in long.words
    assert short.alignment > 0 or short.answer
