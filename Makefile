# All that a person needs from a clean clone. Needs bash, make, git and Python >= 3.12 (uv is used if it is there).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
# Where the demo's files go, and the seed of its sky. Each step goes on where an earlier one was interrupted.
DEMO ?= demo
SEED ?= 1
# How demo-cloud makes visits known: pubsub, or kafka with the bridge behind it.
EVENTS ?= pubsub
# Two processes; tests of one file share what is expensive to make.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
# Extra arguments of pytest, for example: make test PYTEST="-k alerts"
PYTEST ?=

.PHONY: help demo demo-cloud test test-fast test-faults coverage mutants lint bench bench-bridge clean

help:  ## Show the targets
	@echo "Targets:"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	    printf '  %-13s %s\n' $$name "$$text"; done
	@echo "Variables: DEMO=folder and SEED=number for demo, EVENTS=kafka for demo-cloud, PYTEST=\"arguments\" for the tests, LONG=1 for test-faults."

demo: $(VENV)/installed  ## Simulate a night, prepare a repository, play the night, audit it, write a report
	$(BIN)/prompt simulate night $(DEMO)/night --instrument LATISS --seed $(SEED) --visits 3 --size full
	$(BIN)/prompt night prepare $(DEMO)/night --repo $(DEMO)/repo
	$(BIN)/prompt night play $(DEMO)/night --repo $(DEMO)/repo
	$(BIN)/prompt audit $(DEMO)/repo --events $(DEMO)/night
	$(BIN)/prompt night report $(DEMO)/repo --night $(DEMO)/night --out $(DEMO)/report.html --json $(DEMO)/report.json
	@echo "The page is at file://$(abspath $(DEMO)/report.html)"

demo-cloud: $(VENV)/installed  ## The same on emulators of Google Cloud, with the services of services/, in real time
	$(BIN)/prompt simulate night $(DEMO)/night --instrument LATISS --seed $(SEED) --visits 3 --size full
	PYTHONPATH=tools $(BIN)/python -m local_cloud.demo_cloud $(DEMO)/night $(DEMO)/cloud $(EVENTS)

test: $(VENV)/dev.installed  ## Run all tests but the long kills
	$(BIN)/python -m pytest $(PARALLEL) -m "not faults" $(PYTEST)

test-fast: $(VENV)/dev.installed  ## Run the tests that take a few seconds at most
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not faults" $(PYTEST)

test-faults: $(VENV)/dev.installed  ## Kill and stop real workers for some minutes, and audit what is left (LONG=1: longer)
	$(BIN)/python -m pytest tests/faults $(PARALLEL) -m faults $(if $(LONG),--long) $(PYTEST)

coverage: $(VENV)/dev.installed  ## Run the fast tests and show which lines and branches each room's tests reach
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not faults" --cov --cov-report=json $(PYTEST)
	$(BIN)/python tools/coverage_by_room.py coverage.json
	$(BIN)/python -m coverage report --format=total

mutants: $(VENV)/dev.installed  ## Change one token at a time and see whether the tests notice (hours; ROOMS=ledger for one)
	$(BIN)/python tools/mutants.py $(ROOMS)

lint: $(VENV)/dev.installed  ## Check style, types, layers and docstrings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docstrings.py

bench-bridge: $(VENV)/dev.installed  ## Measure the bridge on a real broker and the Pub/Sub emulator (2 minutes)
	$(BIN)/python benchmarks/bridge.py

bench: $(VENV)/dev.installed  ## Run the benchmarks that docs/performance.md quotes
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## Remove the demo, caches and build files (the virtual environment stays: rm -rf .venv)
	rm -rf demo dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment: made with uv if it is there (it takes the version in .python-version), else with the newest
# Python that is found.
$(BIN)/python:
	@if command -v uv >/dev/null && uv venv $(VENV); then exit; fi; \
	for python in python3.14 python3.13 python3.12 python3 \
	        "$$HOME"/.pyenv/versions/3.14*/bin/python "$$HOME"/.pyenv/versions/3.13*/bin/python \
	        "$$HOME"/.pyenv/versions/3.12*/bin/python; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	        echo "Making $(VENV) with $$("$$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	        exec "$$python" -m venv $(VENV); \
	    fi; \
	done; \
	echo "This needs uv, or Python >= 3.12 with its venv module (on Debian: the package python3-venv)." >&2; \
	echo "Looked for python3.14, python3.13, python3.12, python3 and ~/.pyenv/versions." >&2; exit 1

define install
	@if command -v uv >/dev/null; then \
	    uv pip install --python $(BIN)/python --compile-bytecode -r $(1); \
	    uv pip install --python $(BIN)/python --no-deps --editable .; \
	else \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(1); \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	fi
	@touch $@
endef

$(VENV)/installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages of requirements.txt (once)"
	$(call install,requirements.txt)

$(VENV)/dev.installed: requirements-dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages of requirements-dev.txt (once)"
	$(call install,requirements-dev.txt)
