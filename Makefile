# Every target sets itself up: on a fresh clone `make test` makes .venv, installs, and tests.
#
#   PYTHON   the Python to make .venv with (3.11 or later)
#   TORCH    what pip installs first; with PIP_EXTRA_INDEX_URL set to PyTorch's own index, TORCH=torch==2.13.0+cpu
#            gives the smaller build without CUDA

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread a test process: the processes share the cores among them.
PYTEST_ARGS ?= -n auto

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format clean

help:
	@echo "make demo       the whole way on real data, in minutes; writes demo/"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take long"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff format and fix"
	@echo "make install    only the set-up that all of these begin with"
	@echo "make clean      remove the set-up and what tools left"

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lexicell needs Python 3.11 or later, but $(PYTHON) is " + sys.version.split()[0] + ": name another one, as in make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install '$(TORCH)'
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m lexicell demo --out demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu and not network" $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
