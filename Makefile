# What the README promises, and nothing else. PORT=4300 for another port of the Prefect server.
export PORT ?= 4200

.PHONY: distill test lint lock audit down

distill:  ## environment, server, worker, deployments, the whole tiny run
	@bash infra/distill.sh

down:  ## stop what `make distill` started
	@bash infra/down.sh

test:  ## every test of the default run
	@bash infra/environment.sh
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 2 --dist loadfile

lint:  ## formatting, lint and types
	@bash infra/environment.sh
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

lock:  ## write both locks again from the ranges of pyproject.toml
	@bash infra/lock.sh

audit:  ## known vulnerabilities of what is locked; needs the network and uv
	@for lock in cpu gpu; do uvx pip-audit --disable-pip --no-deps -r infra/requirements/$$lock.txt; done
