# make test: set up and run every check.   make demo: set up and run the main job.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: setup test lint types pytest demo clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: lint types pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

# One thread per worker: on busy cores two OpenMP threads are slower than one.
pytest: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

demo: setup
	$(BIN)/fwpkm demo

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist
