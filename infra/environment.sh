#!/usr/bin/env bash
# Makes .venv from the lock; does nothing when it already fits. Uses uv where there is one.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
  lock=infra/requirements/gpu.txt
else
  lock=infra/requirements/cpu.txt
fi
stamp=".venv/made-from"
sum="$lock $(cksum < "$lock")"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$sum" ]; then
  exit 0
fi

free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free_kib" -lt $((5 * 1024 * 1024)) ]; then
  say "Only $((free_kib / 1024)) MiB are free here; the environment and the run need 5 GiB."
  exit 1
fi

python=""
for name in "${PYTHON:-}" python3.12 python3.11 python3 python; do
  # Run it: a version manager's shim exists even where its Python does not.
  if [ -n "$name" ] && "$name" -c \
    'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
    python=$("$name" -c 'import sys; print(sys.executable)')
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 or 3.12 is needed and none was found; install one or say PYTHON=/path/to/python3.11."
  exit 1
fi

# uv reads nothing of pip's configuration: hand over where else wheels lie.
links="${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}"
bash infra/down.sh  # a worker must not go on in an environment that is taken from under it
say "Making .venv from $lock ..."
rm -f "$stamp"
if uv --version >/dev/null 2>&1; then
  uv venv --quiet --clear --python "$python" .venv
  uv pip install --quiet --python .venv/bin/python ${links:+--find-links "$links"} -r "$lock"
else
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet -r "$lock"
fi
printf '%s' "$sum" > "$stamp"
