# make demo    install and run the demo line
# make test    all tests except the slow ones; make test-slow: tests that take minutes each
# make docs    the documentation site, in site/
# make services, make services-down    PostgreSQL, S3, MLflow and Ray on this machine's loopback
PYTHON ?= python3.11
BIN := .venv/bin
UV := $(or $(shell command -v uv),$(BIN)/uv)

.PHONY: env demo test test-slow bench docs lint services services-down services-backup services-restore services-rotate
.DELETE_ON_ERROR:

env: .venv/.installed

# Installs the pinned versions. Byte code is compiled here, because every later start would be slower otherwise.
.venv/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(if $(shell command -v uv),uv venv --quiet --python 3.11 .venv,$(PYTHON) -m venv .venv)
	@test -x "$(UV)" || { $(BIN)/python -m ensurepip --upgrade >/dev/null && $(BIN)/python -m pip install --quiet uv; }
	$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# `samif run` prints the summary table and the path of the report.
demo: env
	$(BIN)/samif run

# Two test files at a time, the longest ones first: most wait for a service or use one core. With one thread per process
# they do not wait for each other's threads, which took the training tests almost three times as long.
test: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

# Tests that start and kill complete stacks, which takes minutes.
test-slow: env
	$(BIN)/python -m pytest -m slow

bench: env
	$(BIN)/python -m benchmarks

# The variable silences an advertisement of the theme; warnings of the build end it.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "site/index.html"

# SERVICES_DIR=folder of data and logs, SERVICES_PORT=first of ten ports. services-down stops what services started and
# keeps the data unless SERVICES_DATA=remove.
SERVICES_DIR ?= .samif/services
services: env
	@$(BIN)/python -m infra.services --state "$(SERVICES_DIR)" up $(if $(SERVICES_PORT),--port $(SERVICES_PORT))

services-down: env
	@$(BIN)/python -m infra.services --state "$(SERVICES_DIR)" down $(if $(filter remove,$(SERVICES_DATA)),--remove-data)

# SERVICES_BACKUP=folder of the copy of databases and objects.
services-backup services-restore: env
	@test -n "$(SERVICES_BACKUP)" || { echo "services: name the folder of the backup: SERVICES_BACKUP=folder" >&2; exit 1; }
	@$(BIN)/python -m infra.services --state "$(SERVICES_DIR)" $(@:services-%=%) "$(SERVICES_BACKUP)"

services-rotate: env
	@$(BIN)/python -m infra.services --state "$(SERVICES_DIR)" rotate

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
