#!/usr/bin/env bash
# `make down`: stops the worker and the server that `make distill` started here, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
source infra/services.sh
stop worker
stop server
