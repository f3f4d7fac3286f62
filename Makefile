# The only definition of green. A fresh machine needs Python 3.11, pip and make, and nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: install demo test check lint types contracts format torture audit gpu bench dist clean

install: $(STAMP)

# torch comes first and alone: any other request than the pinned one fetches gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --constraint constraints.txt --editable ".[http,notebook,test,dev]"
	touch $(STAMP)

demo: install
	$(BIN)/unet-dask demo demo

# Two processes, a file each: most of a test's time is spent waiting for workers to start.
test: install
	$(BIN)/python -m pytest -m "not gpu and not torture" --numprocesses 2 --dist loadfile

check: lint types contracts test

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Three hours on two cores. TORTURE_SCALE=0.05 does a twentieth, TORTURE_SEED=1 another selection of faults.
torture: install
	rm -f benchmarks/results/torture.json
	TORTURE_RESULTS=benchmarks/results/torture.json \
	    $(BIN)/python -m pytest --timeout 3600 tests/torture

# Asks a public service about known holes in what we pin, so it needs the internet. What it cannot look up is a failure.
audit: install
	$(PIP) pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

gpu: install
	$(BIN)/python -m pytest -m gpu

bench: install
	$(BIN)/python benchmarks/bare_loop.py
	$(BIN)/python benchmarks/plumbing.py

dist: install
	rm -rf build dist
	$(PIP) build
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist demo
