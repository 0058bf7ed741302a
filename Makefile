# Everything starts from a fresh clone with Python 3.11 to 3.13, make and Maven.
#   make demo ARGS="--for 30s --json"     make test
SHELL := /bin/sh
.DEFAULT_GOAL := help
# Processes start by the hundred; each loads what the first one compiled.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test lint types unit chaos model mutants fuzz differential bench bench-compare compatibility fixtures proto lock clean

# The first interpreter that runs here and is a version that we support.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
  >/dev/null 2>&1 && { echo "$$p"; break; }; done)
BIN := .venv/bin
READY := .venv/.ready
#: The packages that only make bench and make fuzz need.
TOOLS := .venv/.tools
ARGS ?=
#: Of make fuzz, for each decoder.
SECONDS ?= 20
#: Test processes; servers wait more than they compute, so a few more than cores.
WORKERS ?= 4

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "K2 Flight needs Python 3.11, 3.12 or 3.13 on the path (or: make PYTHON=/path/to/python)"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv \
	  || { rm -rf .venv; echo "The venv module is missing: apt-get install python3-venv"; exit 1; }
	@echo "Installing into .venv (first time: about a minute) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $(READY)

$(TOOLS): requirements-tools.lock $(READY)
	@echo "Installing what make bench and make fuzz need ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps \
	  --only-binary :all: -r requirements-tools.lock
	@touch $(TOOLS)

demo: $(READY) ## a synthetic market, end to end, without any service: make demo ARGS="..."
	@$(BIN)/k2 demo $(ARGS)

test: $(READY) lint types unit ## lint, types, and every test against real servers

lint: $(READY) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

chaos: $(READY) ## kills, faults on every wire, every answer proven: make chaos ARGS="--seed 7"
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

model: $(READY) ## every order of events within larger bounds, and what breaks without each rule
	PYTHONPATH=tests $(BIN)/python -m model $(ARGS)

mutants: $(READY) ## take each guard away: a named test must fail (make mutants ARGS="handles")
	PYTHONPATH=tests $(BIN)/python -m mutants $(ARGS)

fuzz: $(TOOLS) ## every decoder, guided by coverage (make fuzz SECONDS=60), then the generated tests
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS)
	K2_FUZZ=1 $(BIN)/pytest -n $(WORKERS) -m hypothesis $(ARGS)

differential: $(READY) ## random statements, three ways, oracles and DuckDB: make differential ARGS="--seed 7"
	PYTHONPATH=tests $(BIN)/python -m differential $(ARGS)
	K2_FUZZ=1 $(BIN)/pytest -n $(WORKERS) -m differential

bench: $(TOOLS) ## every figure beside its yardstick; writes bench/results/ and bench/README.md
	PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

bench-compare: $(READY) ## what changed, beyond noise: make bench-compare OLD=main NEW=bench/results
	@$(BIN)/python -m bench.compare "$(OLD)" "$(NEW)"

compatibility: $(READY) ## write docs/compatibility.md from the clients' tests
	K2_REQUIRE_CLIENTS=1 K2_WRITE_COMPATIBILITY=1 $(BIN)/pytest -n $(WORKERS) -m feature

fixtures: $(READY) ## write tests/fixtures/iceberg anew with Spark, Flink and Trino (needs a JDK and Maven)
	$(BIN)/python tests/stack/fixtures.py $(ARGS)

proto: $(READY) ## compile the vendored protocol files anew
	cd flight_server/protocol/proto && $(CURDIR)/$(BIN)/python -m grpc_tools.protoc -I. \
	  --include_imports --descriptor_set_out=flight_sql.desc \
	  Flight.proto FlightSql.proto google/protobuf/any.proto

lock: $(READY) ## write both lock files anew (needs the package uv in .venv)
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q uv
	$(BIN)/python -m uv pip compile --universal --generate-hashes --no-header --no-annotate \
	  --python-version 3.11 --extra test --quiet pyproject.toml -o requirements.lock $(ARGS)
	$(BIN)/python -m uv pip compile --universal --generate-hashes --no-header --no-annotate \
	  --python-version 3.11 --no-deps --group tools --quiet -o requirements-tools.lock $(ARGS)

clean: ## remove what the targets made, the jars and the environment included
	rm -rf .venv .stack .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist demo-data k2-live
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
