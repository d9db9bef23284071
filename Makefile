# gpucnn. Needs python3 (3.11 or newer), make and, for the emulated device, a C++ compiler. `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
TRAIN_ARGS ?=
BENCH_ARGS ?=
REPORT_ARGS ?=
ARCHS ?= sm_75 sm_80 sm_86 sm_89 sm_90a sm_100 sm_120
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CHOOSE := $(BIN)/python -I gpucnn/cupy_choice.py --prepare
# Two test processes share two cores: one BLAS thread each. Results do not depend on it.
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: train test test-peers test-full bench gpu-report wheel lint clean help
.DEFAULT_GOAL := help

train: $(VENV)/.train ## virtual environment, install, then train the lecture network on CIFAR-10
	$(BIN)/gpucnn train $(TRAIN_ARGS)

test: $(VENV)/.test ## virtual environment, install with test extras, the whole suite
	$(PYTEST) -n $(WORKERS) $(PYTEST_ARGS)

test-peers: $(VENV)/.peers ## the tests marked peers, with PyTorch beside us as a second opinion
	$(PYTEST) -n $(WORKERS) -m peers $(PYTEST_ARGS)

test-full: $(VENV)/.test ## everything, with at least 200 random cases an operator
	$(PYTEST) -n $(WORKERS) -m "not peers" --hypothesis-profile=full $(PYTEST_ARGS)

bench: $(VENV)/.peers ## every benchmark, PyTorch beside us: one record under benchmarks/results/, in under 20 minutes
	record=benchmarks/results/$$($(BIN)/python -c 'from gpucnn.bench import record; print(record.file_name())') && \
	$(BIN)/gpucnn bench --network all --latency --memory --scaling --footprint --json $$record $(BENCH_ARGS) && \
	$(BIN)/python -m pytest benchmarks --quiet --benchmark-quiet --record=$$record $(PYTEST_ARGS)

gpu-report: $(VENV)/.peers ## on a machine with a GPU: its tests, compute-sanitizer, every benchmark; a JSON a step
	$(BIN)/python -m benchmarks.gpu_report $(REPORT_ARGS)

wheel: $(VENV)/.test ## dist/*.whl with the kernels compiled for ARCHS, so that nothing is compiled where it is installed
	$(BIN)/python -m gpucnn.backends.cuda.prebuilt $(ARCHS)
	$(BIN)/python -m build --wheel; status=$$?; $(BIN)/python -m gpucnn.backends.cuda.prebuilt --remove; exit $$status

lint: $(VENV)/.lint ## ruff, and mypy over gpucnn/
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## remove the virtual environment, caches and build products (runs/ stays)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Each stamp is one finished installation, repeated when pyproject.toml changes.

$(VENV)/.python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "gpucnn needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml
	extra=$$($(CHOOSE)) && $(PIP) --editable ".$${extra:+[$$extra]}"
	@touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	extra=$$($(CHOOSE) --tests) && $(PIP) --editable ".[test$${extra:+,$$extra}]"
	@touch $@

$(VENV)/.peers: $(VENV)/.test
	$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.lint: $(VENV)/.python pyproject.toml
	$(PIP) --editable ".[lint]"
	@touch $@
