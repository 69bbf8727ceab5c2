#!/usr/bin/env bash
# Writes the judge's CPU lock again from requirements.in.
set -euo pipefail
cd "$(dirname "$0")"
links="${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}"
export UV_CUSTOM_COMPILE_COMMAND="infra/judge/lock.sh"
uv pip compile --quiet --upgrade requirements.in --override overrides.txt --python-version 3.11 \
  ${links:+--find-links "$links"} --no-emit-find-links -o cpu.txt
# The CUDA-less wheel carries a local version (+cpu) that the package index does not know.
sed -i -E 's/^(torch==[0-9.]+)\+cpu$/\1/' cpu.txt
