#!/usr/bin/env bash
# Writes both locks from the ranges of pyproject.toml: the one place where versions are chosen.
set -euo pipefail
cd "$(dirname "$0")/.."
links="${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}"
export UV_CUSTOM_COMPILE_COMMAND="make lock"
# On a machine with a CPU wheel of torch at hand (find-links) the CPU lock needs no CUDA packages.
uv pip compile --quiet --upgrade pyproject.toml --extra captions --group dev --python-version 3.11 \
  ${links:+--find-links "$links"} --no-emit-find-links -o infra/requirements/cpu.txt
uv pip compile --quiet --upgrade pyproject.toml --extra captions --group dev --python-version 3.11 \
  -o infra/requirements/gpu.txt
# The CUDA-less wheel carries a local version (+cpu) that the package index does not know.
sed -i -E 's/^(torch==[0-9.]+)\+cpu$/\1/' infra/requirements/cpu.txt
