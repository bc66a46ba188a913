# make demo    a fresh machine to a finished run of the demo line
# make test    every check that has to hold
PYTHON ?= python3.11
BIN := .venv/bin
UV := $(or $(shell command -v uv),$(BIN)/uv)

.PHONY: env demo test bench lint
.DELETE_ON_ERROR:

env: .venv/.installed

# The pinned set; byte code is compiled once here, or every later start would pay for it.
.venv/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(if $(shell command -v uv),uv venv --quiet --python 3.11 .venv,$(PYTHON) -m venv .venv)
	@test -x "$(UV)" || { $(BIN)/python -m ensurepip --upgrade >/dev/null && $(BIN)/python -m pip install --quiet uv; }
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# The summary table and the report's address are printed by `samif run` itself.
demo: env
	$(BIN)/samif run

test: env
	$(BIN)/python -m pytest

bench: env
	$(BIN)/python -m benchmarks

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
