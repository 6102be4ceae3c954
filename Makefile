# Each target works on a bare machine with Python >= 3.11 and make: it creates .venv first.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# Small matrices run several times slower on two threads than on one, and the tests fill the cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench clean

help:  ## say what each target does
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /make \1\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python >= 3.11 is needed; say which one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing metarl-baselines and its tested dependencies into $(VENV)"
	@$(PIP) -e '.[test]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@$(PIP) -e '.[test,docs]'
	@touch $@

demo: $(VENV)/installed  ## the main job end to end: a table, a picture, one more customer served
	@$(BIN)/python -m zoo demo

test: $(VENV)/installed  ## the short test suite (the long one: .venv/bin/pytest -m slow)
	@$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/installed  ## ruff (with bandit's rules), formatting, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy

docs: $(VENV)/installed-docs  ## the documentation as HTML in docs/_build
	@$(BIN)/python -m sphinx -q -W -b html docs docs/_build
	@echo "docs/_build/index.html"

bench: $(VENV)/installed  ## how fast environments step and agents learn on this machine
	@for script in scripts/bench_*.py; do $(ONE_THREAD) $(BIN)/python "$$script"; done

clean:  ## remove the environment and what was built
	@rm -rf $(VENV) build dist docs/_build
