# One word for each chore. `make help` explains them.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
SEEDS ?= 300
EVENTS ?= 10000
SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help setup etcd docker proto check test sim matrix bench dev demo clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed etcd docker  ## install everything: .venv with Atoll in it; etcd, and as root a Docker engine, where there is none

.venv/installed: pyproject.toml
	@$(PYTHON) -m venv .venv 2>/dev/null || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv && $(PYTHON) -m venv .venv; }
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

etcd:
	@[ -x "$${ATOLL_ETCD:-}" ] || command -v etcd >/dev/null || { \
		echo "no etcd found: installing Debian's etcd-server"; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy etcd-server; }

# The engine belongs to the machine: it is started when none answers, and left running.
docker:
	@timeout 20 docker info >/dev/null 2>&1 && [ -x /bin/busybox ] || sh tests/house/docker.sh || [ "$${ATOLL_REQUIRE_DOCKER:-}" != 1 ]

proto: setup  ## generate atoll/api from proto/ and the sync SDK from the async one (checked in; `make check` compares)
	$(BIN)/python tests/house/generate.py
	$(BIN)/python tests/house/generate_sync.py

check: setup  ## style, types, directions of imports, generated code, house rules: under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --verbose > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	$(BIN)/python tests/house/generate.py --check
	$(BIN)/python tests/house/generate_sync.py --check
	$(BIN)/python tests/house/rules.py

test: setup  ## every test: units, properties, contracts, integration on real etcd, end to end
	ATOLL_REQUIRE_ETCD=1 $(BIN)/pytest -n 2 --dist loadfile tests

sim: setup  ## simulate: SEEDS=300 histories of EVENTS=10000 events each, with random faults
	$(BIN)/python -m simulation run --seeds $(SEEDS) --events $(EVENTS) --workers 2

matrix: setup  ## the kill matrix: every process struck in every way while jobs flow; a table, and matrix.json
	$(BIN)/python -m tests.matrix --json matrix.json

bench: setup  ## benchmarks as JSON: SECONDS=60 of durable bindings into real etcd, and the store; DATA=FOLDER also replays traces
	$(if $(DATA),$(BIN)/pip install -q --disable-pip-version-check -e '.[plots]')
	$(BIN)/python -m tests.benchmarks --seconds $(SECONDS) $(if $(DATA),--data $(DATA) --plot bench)

dev: setup  ## a lasting playground: three regions, nine nodes, five workloads; Ctrl-C ends it
	$(BIN)/atoll dev

demo: setup  ## Atoll in a minute: three regions, five workloads, a node that dies, the proof; cleans up
	@$(BIN)/atoll demo

clean:  ## forget the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
