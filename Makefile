# Every target creates the virtual environment if needed, and again when pyproject.toml changes.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# The stamp contains the folder, so an environment that was copied with a clone is not used.
READY := $(VENV)/ready-$(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)
# Workers of pytest-xdist, more than two cores need, since tests of servers mostly wait; 0 runs
# everything in one process.
WORKERS ?= 3
# Each worker begins with tests that follow each other, so that few modules are prepared twice.
PYTEST := -m pytest -n $(WORKERS) --dist worksteal
# More arguments: make test ARGS='tests/embedded -x', make bench ARGS='--only techniques'
ARGS ?=
# Another requirement in the environments of test-lowest and test-newest: make test-newest WITH='sqlalchemy<2.1'
WITH ?=

unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# The tests start hundreds of processes. Each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-lowest test-newest bench bench-all bench-read soak check types recordings docs migrate revision clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## run an instrumented LLM application and query its telemetry
	@$(BIN)/python -m observatory_storage.demo

test: $(READY) ## run the tests (TEST_DATABASE_URL, TEST_REDIS_URL: on your own servers)
	@$(BIN)/python $(PYTEST) $(ARGS)

test-lowest: ## run the tests with the lowest versions that pyproject.toml allows, on Python 3.11
test-newest: ## run the tests with the newest versions, pre-releases included
test-lowest: FROM := python3.11
test-newest: FROM := python3
test-lowest: VERSIONS := --resolution lowest-direct
test-newest: VERSIONS := --prerelease allow

# uv can choose the lowest versions, which pip cannot.
test-lowest test-newest: test-%:
	@$(or $(PYTHON),$(FROM)) -m venv --clear $(VENV)-$*
	@$(VENV)-$*/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)-$*/bin/uv pip install --quiet --compile-bytecode --python $(VENV)-$*/bin/python $(VERSIONS) --editable '.[dev]' $(if $(WITH),'$(WITH)')
	@$(VENV)-$*/bin/python $(PYTEST) $(ARGS)

bench: $(READY) ## measure writing, which takes minutes (ARGS=--save updates docs; ARGS=--help)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-all: $(READY) ## measure writing completely, with a table that grows to 5 million spans
	@$(BIN)/python -m tests.benchmarks --all $(ARGS)

bench-read: $(READY) ## measure reading 5 million spans (ARGS='--database-directory DIR' keeps the data)
	@$(BIN)/python -m tests.benchmarks.reading $(ARGS)

soak: $(READY) ## run the fault and fuzz tests at full length
	@SOAK=1 $(BIN)/python -m pytest -n 0 tests/soak tests/hosts tests/replication tests/repositories/test_span_search.py tests/writers/test_properties.py tests/writers/test_usage_once.py tests/rows/test_columnar.py $(ARGS)

check: $(READY) ## check format, lint, types and import layers, then run the tests
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(MAKE) --no-print-directory --jobs 2 types test

# Beside the tests, since each of them uses one core for a minute.
types: $(READY)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

recordings: $(READY) ## record anew what instrumentations export (ARGS=NAME for one), see CONTRIBUTING.md
	@$(BIN)/python -m tests.recordings.record $(ARGS)

docs: $(READY) ## build the documentation and the API reference into docs/_build (warnings are errors)
	@$(BIN)/python -c 'import furo, myst_parser, sphinx' 2> /dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build $(ARGS)

migrate: $(READY) ## migrate the database of DATABASE_URL to the newest schema
	@$(BIN)/alembic upgrade head

revision: $(READY) ## write a migration for changed models: make revision MESSAGE="cached tokens"
	@$(BIN)/python -m tests.new_revision "$(MESSAGE)"

clean: ## remove the virtual environments, caches and builds
	@rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build dist docs/_build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Locked, so that two makes in one folder do not both install. pip's output is shown if it fails.
$(READY): pyproject.toml
	@if command -v flock > /dev/null; then exec 9< Makefile && flock 9; fi; \
	if [ -e $@ ] && [ ! pyproject.toml -nt $@ ]; then exit 0; fi; \
	for python in "$$PYTHON" python3 python3.14 python3.13 python3.12 python3.11; do \
		[ -n "$$python" ] && "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
			2> /dev/null && break; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer with venv is needed: install it (on Debian and Ubuntu: python3-venv)," \
			"or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	echo "Preparing $(VENV) (once; it takes about a minute) ..." >&2; \
	output=$$({ [ -e $@ ] || "$$python" -m venv --clear $(VENV); } 2>&1 && \
		$(BIN)/python -m pip install --disable-pip-version-check --no-input --editable '.[dev]' 2>&1) || \
		{ printf '%s\n' "$$output" >&2; exit 1; }; \
	touch $@
