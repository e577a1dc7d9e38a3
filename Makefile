# Every target sets up what it needs. Python 3.10 or newer is `python3`, or say `make PYTHON=python3.12 ...`.
PYTHON ?= python3
DATASET ?= ml-100k
SEEDS ?= 1
TRIALS ?= 6
PORT ?= 8000
# Where data sets are looked for, and downloaded to.
export RECSYS_DATA_HOME ?= $(CURDIR)/data

VENV := .venv
# What runs the package, and what developing it needs besides.
RUNTIME := $(VENV)/runtime
INSTALLED := $(VENV)/installed
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help install test coverage lint types benchmark tune demo wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create .venv and install the package in it, with the tested versions of all it needs

# Again only when the requirements change. Modules are compiled when they are first imported: most never are.
$(RUNTIME): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "recsys needs Python 3.10 or newer: make PYTHON=python3.12 install"; exit 1; }
	$(RUN) pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) pip install --quiet --no-compile --editable '.[report]' --constraint constraints.txt
	@touch $@

$(INSTALLED): $(RUNTIME)
	$(RUN) pip install --quiet --no-compile --editable '.[test,benchmark,tune]' --constraint constraints.txt
	@touch $@

# A worker a core, a thread a worker: more would wait for each other.
test: install ## run the whole test suite
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses auto

coverage: install ## the same, half as long again, and which lines no test reaches
	OMP_NUM_THREADS=1 $(RUN) pytest --cov --numprocesses auto

lint: install ## check style and format with ruff
	$(RUN) ruff check
	$(RUN) ruff format --check

types: install ## check types with mypy --strict
	$(RUN) mypy

benchmark: $(RUNTIME) ## measure every model: DATASET=ml-100k or ml-1m, SEEDS=1
	$(RUN) benchmarks.run --dataset $(DATASET) --seeds $(SEEDS)

tune: install ## choose the parameters that the benchmark uses, on validation rows: DATASET, TRIALS=6
	$(RUN) benchmarks.tune --dataset $(DATASET) --trials $(TRIALS)

demo: demo/manifest.json ## serve a model of MovieLens-100K, fitted the first time, with a page to try it: PORT=8000
	$(RUN) recsys serve demo --port $(PORT)

demo/manifest.json: | $(INSTALLED)
	$(RUN) benchmarks.demo demo

wheel: install ## build the wheel in dist/
	rm -rf build dist
	$(RUN) pip wheel --quiet . --no-deps --no-build-isolation --wheel-dir dist

clean: ## remove .venv and everything that was built; data/ stays
	rm -rf $(VENV) build demo dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
