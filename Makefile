# The only definition of green. A fresh machine needs Python 3.11, pip and make, and nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What pip is asked for as torch, options and all; nothing for the torch that $(VENV) has already. On a machine with a
# GPU another build may be wanted: see benchmarks/gpu/README.md.
TORCH ?= $(shell grep '^torch==' constraints.txt)

.PHONY: install demo test test-slow test-avx2 test-python check lint types contracts format docs torture audit slurm cuda gpu bench \
    bench-gpu dist release clean

install: $(STAMP)

# torch comes first and alone: any other request than the pinned one fetches gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(strip $(TORCH)),$(PIP) $(TORCH))
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP) --constraint $(VENV)/constraints.txt --editable ".[http,notebook,test,dev]"
	touch $(STAMP)

demo: install
	$(BIN)/unet-dask demo demo

# Two processes, a file each: most of a test's time is spent waiting for workers to start. The longest files come first,
# as tests/conftest.py puts them.
test: install
	$(BIN)/python -m pytest -m "not gpu and not slurm and not torture and not slow" --numprocesses 2 --dist loadfile \
	    --no-loadscope-reorder

# What takes a quarter of an hour more and has shorter relatives in `make test`.
test-slow: install
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

# As on a processor without AVX-512: what it cannot do must be skipped or refused, whatever this machine can.
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: export ATEN_CPU_CAPABILITY := avx2
test-avx2: test

# On another Python, in an environment of its own: make test-python PYTHON=python3.13
test-python: OTHER = .venv-$(notdir $(PYTHON))
test-python:
	$(MAKE) test VENV=$(OTHER) PYTHON=$(PYTHON)

check: lint types contracts test docs

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

# The pages of docs/ as a site, which opens from its folder; a link that leads nowhere is an error.
docs: export NO_MKDOCS_2_WARNING := 1
docs: install
	$(PIP) --constraint $(VENV)/constraints.txt --editable ".[docs]"
	$(BIN)/mkdocs build --quiet --strict

# Three hours on two cores. TORTURE_SCALE=0.05 does a twentieth, TORTURE_SEED=1 another selection of faults.
torture: install
	rm -f benchmarks/results/torture.json
	TORTURE_RESULTS=benchmarks/results/torture.json \
	    $(BIN)/python -m pytest -m "" --timeout 3600 tests/torture

# Asks a public service about known holes in what we pin, so it needs the internet. What it cannot look up is a failure.
audit: install
	$(PIP) pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

# Without Slurm all tests of it are skipped, and nothing would be red: so it is looked for first, by the example.
slurm: export PATH := $(CURDIR)/$(BIN):$(PATH)
slurm: install
	rm -rf build/slurm
	$(BIN)/python examples/slurm/one_node.py bash examples/slurm/demo.sh build/slurm
	$(BIN)/python -m pytest -m slurm

# Without a GPU all tests of it are skipped, and nothing would be red: so it is looked for first.
cuda: install
	@$(BIN)/python -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else \
	    f'torch {torch.__version__} finds no CUDA device here. With a GPU: make clean gpu TORCH=..., see benchmarks/gpu/README.md')"

gpu: cuda
	$(BIN)/python -m pytest -m gpu

bench: install
	$(BIN)/python benchmarks/bare_loop.py
	$(BIN)/python benchmarks/plumbing.py

# What each figure is compared with: benchmarks/gpu/README.md. All of it is printed, and nothing is kept.
bench-gpu: cuda
	$(BIN)/python benchmarks/gpu/limits.py
	$(BIN)/python benchmarks/gpu/network.py
	$(BIN)/python benchmarks/gpu/network.py --dims 3
	$(BIN)/python benchmarks/gpu/end_to_end.py
	$(BIN)/python benchmarks/training.py --device cuda --width 64 --tile 384 --threads 4
	$(BIN)/python benchmarks/training.py --device cuda --width 64 --tile 384 --threads 4 --precision bfloat16

dist: install
	rm -rf build dist
	$(PIP) build
	$(BIN)/python -m build

# What a release is: a wheel that passes its checks, and works in an environment that has nothing else.
release: check dist
	$(PIP) twine
	$(BIN)/twine check --strict dist/*
	rm -rf build/clean && $(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet $(TORCH)
	build/clean/bin/python -m pip install --quiet --constraint $(VENV)/constraints.txt dist/*.whl
	cd build && clean/bin/unet-dask demo demo
	@echo "dist/ is ready to be uploaded; tag the commit with the version of pyproject.toml"

clean:
	rm -rf $(VENV) build dist demo site
