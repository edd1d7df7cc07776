# Each target makes .venv on first use and installs what it needs into it; a second call installs nothing,
# until pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# Where `make demo` writes, and what more it should be told, such as DEMO_ARGS="--seed 1".
OUT ?= runs/demo
DEMO_ARGS ?=

# Each test process imports TensorFlow (about 1 GB): more of them want more memory. 0 runs the tests in one process.
WORKERS ?= 2
PYTEST_ARGS ?=

export TF_CPP_MIN_LOG_LEVEL ?= 2

.DELETE_ON_ERROR:
.PHONY: help demo test test-all lab bench figures lint clean

help:
	@echo 'make demo      draw faces, train a captioner on them, score it, draw its heatmaps (into $(OUT))'
	@echo 'make test      run the tests; the slow ones as well: make test-all'
	@echo 'make lab       open JupyterLab on notebooks/'
	@echo 'make bench     run every benchmark'
	@echo 'make figures   draw figures/ from the demo'
	@echo 'make lint      ruff, mypy and the import contracts'
	@echo 'make clean     remove caches and build files; .venv and your runs stay'
	@echo
	@echo 'Settings: PYTHON=python3.12 (for a new .venv), OUT=DIR, DEMO_ARGS=..., PYTEST_ARGS="-k decoding", WORKERS=4;'
	@echo 'ATTNCAP_DATA=DIR in the environment: real photographs for the tests and benchmarks that want them.'

$(VENV)/.stamp-venv:
	@command -v '$(PYTHON)' >/dev/null || { echo "make: '$(PYTHON)' was not found; \
	name a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: attncap needs Python 3.11 or \
	newer, but '$(PYTHON)' is `'$(PYTHON)' --version 2>&1`; name another: make PYTHON=python3.12" >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-run: pyproject.toml | $(VENV)/.stamp-venv
	$(RUN) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.stamp-test $(VENV)/.stamp-lab: $(VENV)/.stamp-%: pyproject.toml | $(VENV)/.stamp-venv
	$(RUN) -m pip install --quiet --editable '.[$*]'
	@touch $@

demo: $(VENV)/.stamp-run
	$(RUN) -m attncap demo --out '$(OUT)' $(DEMO_ARGS)

# --dist loadfile keeps a file's tests in one process, so that what a module builds once is built once.
test: $(VENV)/.stamp-test
	$(RUN) -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-all: $(VENV)/.stamp-test
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

lab: $(VENV)/.stamp-lab
	$(RUN) -m jupyterlab notebooks

# The figures of the README, from the demo in $(OUT), which is made where it is missing.
figures: $(VENV)/.stamp-run
	@test -f '$(OUT)/scores.json' || $(MAKE) demo
	$(RUN) scripts/make_figures.py --demo '$(OUT)'

bench: $(VENV)/.stamp-test
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(RUN) "$$script"; done

lint: $(VENV)/.stamp-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
