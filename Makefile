# make setup    own environment in .venv with the pinned versions of constraints.txt
# make demo     demonstrations -> imitation -> offline -> online on the cube task, with a report
# make test     style, types, import rules, tests and doctests
# make test-fast   what answers within a minute: no tests that train, kill processes or draw reports
# make bench    speed of all parts in 8 minutes, kept in benchmarks/results and compared with the last record
# make fuzz     thousands of damaged files and hostile environments, some minutes
# make crash    a thousand kills of recording and fifty of training, each compared with what was promised
# make gpu-check   GPU tests and the benchmark of networks from the source tree, on a bare CUDA image

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
DEMO_DIR ?= runs/demo-$(shell date +%Y%m%d-%H%M%S)
SOURCES := src tests $(wildcard benchmarks) $(wildcard examples) $(wildcard studies)
TEST_WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast fuzz crash bench lint format gpu-check clean

help:
	@sed -n 's/^# make /  make /p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' is not Python 3.11 or newer; install one and name it: make setup PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (the first time takes a few minutes) ..."
	@# Python compiles what it imports; compiling everything ahead takes a minute more.
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

demo: setup
	@$(BIN)/serfn train --task cube --budget demo --out $(DEMO_DIR)

lint: setup
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/pyright -p pyright-strict.json
	$(BIN)/lint-imports --no-cache

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_WORKERS)

test-fast: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_WORKERS) -m "not slow and not gpu"

fuzz: setup
	SERFN_FUZZ=20 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_WORKERS) tests/fuzz tests/data/formats/test_fuzz.py

crash: setup
	$(BIN)/python benchmarks/crash_harness.py --kills 1000
	$(BIN)/python benchmarks/crash_training.py --kills 50

format: setup
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench

gpu-check:
	PYTHONPATH=src python3 -m pytest -q -m gpu tests -p no:cacheprovider
	PYTHONPATH=src python3 -m benchmarks.bench --only acting updates --device cuda

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
