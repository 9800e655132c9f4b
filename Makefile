# Everything happens in .venv; nothing needs root, Docker or an account.
PYTHON ?= python3
BIN := .venv/bin
export PYTHONWARNINGS ?= ignore::DeprecationWarning

.PHONY: help install demo test lint bench clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## make .venv and install the project, the embedded AWS and the test tools

.venv/.installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found %d.%d: make PYTHON=/path/to/python3.11 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@# Compiled now and once, as many processes of dagster start at the same moment.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[local,dev]'
	@touch $@

demo: install  ## the whole path on this machine; ONCE=1 ends by itself, and fails if a mart differs from its source
	@exec $(BIN)/zeroetl demo $(if $(ONCE),--once)

test: install  ## the tests
	@$(BIN)/python -m pytest $(or $(ARGS),-n auto --dist loadfile)

lint: install  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: install  ## ratios to floors measured in the same run
	@$(BIN)/python -m bench $(ARGS)

clean:  ## remove the environment and the embedded AWS's data of this folder
	rm -rf .venv .zeroetl build dist *.egg-info
