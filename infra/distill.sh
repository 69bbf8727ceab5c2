#!/usr/bin/env bash
# `make distill`: environment, Prefect server and worker on loopback if none is there,
# deployments, the tiny run; ends by saying where to look. `make down` stops what this started.
set -euo pipefail
cd "$(dirname "$0")/.."
bash infra/environment.sh
source infra/services.sh

free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free_kib" -lt $((2 * 1024 * 1024)) ]; then
  say "Only $((free_kib / 1024)) MiB are free here; the run needs 2 GiB."
  exit 1
fi

command -v curl > /dev/null || {
  say "curl is needed to ask the Prefect server whether it is up; install it."
  exit 1
}

start_server
start_worker
say "Registering the deployments ..."
prefect --no-prompt deploy --all --prefect-file infra/prefect.yaml > "$state/deploy.log" 2>&1 || {
  tail -n 20 "$state/deploy.log" >&2
  say "Registering the deployments failed; the whole log is $state/deploy.log."
  exit 1
}
python -m flows.automations > "$state/automations.log" 2>&1 || {
  tail -n 20 "$state/automations.log" >&2
  say "Registering the automation failed; the whole log is $state/automations.log."
  exit 1
}
prefect deployment run distill/tiny --watch || {
  say "The run did not complete; its log is in the UI at $ui and in $state/worker.log."
  exit 1
}

printf '\n%s\n' "Look here:"
printf '  %-9s%s\n' "UI" "$ui" \
  "Report" "$PWD/artifacts/tiny/report/report.html" \
  "Samples" "$PWD/artifacts/tiny/report/samples.jpg"
