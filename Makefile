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
PART ?= 1/1


.DELETE_ON_ERROR:
.PHONY: help check-python demo test test-slow test-all test-lowest package docs lab bench figures lint clean

help:
	@echo 'make demo      draw faces, train a captioner on them, score it, draw its heatmaps (into $(OUT))'
	@echo 'make test      run the tests; the slow ones as well: make test-all'
	@echo 'make docs      build the documentation into build/docs; a warning is an error'
	@echo 'make lab       open JupyterLab on notebooks/'
	@echo 'make bench     run every benchmark'
	@echo 'make figures   draw figures/ from the demo'
	@echo 'make lint      ruff, mypy and the import contracts'
	@echo 'make package   build sdist and wheel into dist/, install the wheel into a fresh environment, try it there'
	@echo 'make test-lowest  the tests in a fresh environment with the lowest versions that pyproject.toml allows'
	@echo 'make clean     remove caches and build files; .venv and your runs stay'
	@echo
	@echo 'Settings: PYTHON=python3.12 (for a new .venv), OUT=DIR, DEMO_ARGS=..., PYTEST_ARGS="-k decoding", WORKERS=4;'
	@echo 'ATTNCAP_DATA=DIR in the environment: real photographs for the tests and benchmarks that want them.'

$(VENV)/.stamp-venv:
	@$(MAKE) --no-print-directory check-python
	'$(PYTHON)' -m venv $(VENV)
	@touch $@

# TensorFlow has wheels for these versions and no others; without this check pip fails without naming the reason.
check-python:
	@command -v '$(PYTHON)' >/dev/null || { echo "make: '$(PYTHON)' was not found; \
	name Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "make: attncap needs \
	Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is `'$(PYTHON)' --version 2>&1`; name another: make PYTHON=python3.12" >&2; exit 1; }

$(VENV)/.stamp-run: pyproject.toml | $(VENV)/.stamp-venv
	$(RUN) -m pip install --quiet --editable .
	@touch $@

$(VENV)/.stamp-test $(VENV)/.stamp-lab $(VENV)/.stamp-docs: $(VENV)/.stamp-%: pyproject.toml | $(VENV)/.stamp-venv
	$(RUN) -m pip install --quiet --editable '.[$*]'
	@touch $@

demo: $(VENV)/.stamp-run
	$(RUN) -m attncap demo --out '$(OUT)' $(DEMO_ARGS)

# --dist loadfile keeps a file's tests in one process, so that what a module builds once is built once.
test: $(VENV)/.stamp-test
	$(RUN) -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# Some of the slow tests: make test-slow PART=2/4 runs the second of four parts.
test-slow: $(VENV)/.stamp-test
	$(RUN) -m pytest -m slow -n $(WORKERS) --dist loadfile --part $(PART) $(PYTEST_ARGS)

test-all: $(VENV)/.stamp-test
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

docs: $(VENV)/.stamp-docs
	$(RUN) -m sphinx --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo 'open build/docs/index.html'

test-lowest: | check-python
	rm -rf build/lowest && mkdir -p build
	'$(PYTHON)' scripts/lowest_versions.py > build/lowest.txt
	'$(PYTHON)' -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --constraint build/lowest.txt '.[test]'
	build/lowest/bin/python -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	rm -rf build/lowest

# The commands run outside the checkout, so that only what the wheel holds can be imported.
package: $(VENV)/.stamp-test
	rm -rf dist build/package build/lib
	$(RUN) -m build --quiet --outdir dist .
	'$(PYTHON)' -m venv build/package
	build/package/bin/python -m pip install --quiet dist/*.whl
	cd build/package && bin/attncap --version && bin/attncap demo --out demo --pictures 120 >/dev/null \
	&& bin/attncap caption --run demo/run "$$(find demo/faces -name '*.png' | head -n 1)" --heatmap heatmap.png \
	&& test -s heatmap.png && bin/attncap check --data faces:40
	rm -rf build/package build/lib

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
