# One verb each, the same by hand and in continuous integration. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROJECTS := pyproject.toml plugins/worker_spi/pyproject.toml plugins/notify_demo/pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help setup run test test-again test-slow soak bench bench-quick check fix build clean

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Everything a fresh clone needs; repeated only when a project file or the constraints change.
$(STAMP): $(PROJECTS) constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'ERROR:  Python 3.11 or newer is needed'; \
	  echo "HINT:  Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[embedded,top,test,check]' -e plugins/worker_spi -e plugins/notify_demo
	@touch $@

setup: $(STAMP) ## make .venv with the host, both plugins and the tools

run: $(STAMP) ## start the host of ./workers.toml on an embedded PostgreSQL (Ctrl-C stops it)
	@if [ -t 0 ] && [ -t 1 ]; then exec $(BIN)/bgworker run --tui; else exec $(BIN)/bgworker run --log both; fi

# Compiled ahead, as pip does with what it installs: the tests start some thousand interpreters.
test: $(STAMP) ## the whole fast suite, the one continuous integration runs
	@$(BIN)/python -m compileall -q host plugins tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal --cache-clear -m "not slow"

test-again: $(STAMP) ## the tests that failed the last time, one after another; more than three are no accident
	@$(BIN)/python -c 'import json; failed = json.load(open(".pytest_cache/v/cache/lastfailed")); \
	  print(*failed, sep="\n"); raise SystemExit(len(failed) > 3)'
	@$(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none -m "not slow"

test-slow: $(STAMP) ## the rest: cases that need minutes or privileges
	@$(BIN)/python -m pytest -q -m slow

soak: $(STAMP) ## random faults against a running host: make soak MINUTES=30 SEED=1
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))

bench: $(STAMP) ## bgworker beside every peer that is installed, in under ten minutes; see docs/performance.md
	@$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## what says most, without peers, in a minute
	@$(BIN)/python -m benchmarks --quick

check: $(STAMP) ## ruff format and lint, mypy strict
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

fix: $(STAMP) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

build: $(STAMP) ## wheels of the host and both plugins into dist/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist . ./plugins/worker_spi ./plugins/notify_demo
	@ls dist

clean: ## remove .venv, caches and built files (never a data directory)
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
