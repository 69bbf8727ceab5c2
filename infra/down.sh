#!/usr/bin/env bash
# `make down`: stops the worker and the server that `make distill` started here, with the runs
# that are under way, and nothing else. Runs go on where they were at the next start.
set -euo pipefail
cd "$(dirname "$0")/.."
source infra/services.sh
stop_runs
stop worker
stop server
