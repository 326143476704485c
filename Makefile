# Everything a newcomer and the checks need. `make help` lists it.
#
# PYTHON=   interpreter for a new .venv (3.11 or newer)
# ARGS=     arguments of the demonstration, such as ARGS="--limit 50000", or of chaos, such as ARGS="--seed 2"
# SECONDS=  how long `make soak` runs, in place of 20,000 seeds
# TESTS=    arguments of pytest, such as TESTS="tests/unit -k plan"
# BENCH=    arguments of the benchmarks, such as BENCH="--rounds 1 --workloads map"
# WORKLOAD= what to profile; `python -m benchmarks --list` names them

PYTHON ?= python3
ARGS ?=
SECONDS ?=
TESTS ?= tests
BENCH ?=
WORKLOAD ?= count-update
# Processes that run tests: of those that compute, and of those on a broker, which mostly wait.
JOBS ?= 2
WAITING_JOBS ?= 3

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
# Targets given together come one after the other, also under -j.
.NOTPARALLEL:
.PHONY: help chaos chaos-short demo soak soak-memory year rights test venv lint types imports doctests pytest pytest-broker pytest-sessions pytest-others format clean bench bench-quick profile

define say
	@printf '\n== %s\n' "$(1)"
endef

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

chaos: $(INSTALLED) ## a million records while processes, state and the broker die, every output checked; ARGS="--seed 2"
	@$(BIN)/python -m tests.chaos $(ARGS)

# Behind the tests on a broker: what it waits for is a session's time-out, which others' waiting must not stretch.
chaos-short: $(INSTALLED) ## the same in about three minutes, each kind of fault once or twice
	$(call say,pytest tests/chaos)
	@$(BIN)/python -m pytest tests/chaos

demo: $(INSTALLED) ## count 336,776 flights exactly once on a local Kafka, while a process is killed
	@$(BIN)/python -m streamstate_cli demo $(ARGS)

soak: $(INSTALLED) ## 20,000 seeds of the simulation on all cores; SECONDS= for a given time
	@$(BIN)/python -m streamstate_cli simulate $(if $(SECONDS),--seconds $(SECONDS),--seeds 0:20000)

# What waits and what computes beside each other; tests/checks.py says which is which.
test: $(INSTALLED) ## everything: lint, types, import contract, doctests, all tests
	@+MAKE="$(MAKE)" $(BIN)/python -m tests.checks

soak-memory: $(INSTALLED) ## ten million keys in one process, its memory held against its budget
	@$(BIN)/python -m tests.chaos.soak_memory $(ARGS)

venv: $(INSTALLED) ## create .venv and install the project for development

year: $(INSTALLED) ## the ready topologies over all flights of 2013 against SQL; `make test` takes the first weeks
	@STREAMSTATE_TEST_WHOLE_YEAR=1 $(BIN)/python -m pytest --durations 8 tests/topologies

# A process and a broker of its own: dozens of applications begin and are ended in it.
rights: $(INSTALLED) ## each right of an application left out and taken away, on a secured broker; about two minutes
	@$(BIN)/python -m pytest -m rights tests/integration

# Made anew when pyproject.toml changes.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "streamstate needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo "not installed")." >&2; \
		echo "Name one that is: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12" >&2; \
		exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $$($(PYTHON) --version) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing streamstate and what its checks need into $(VENV); a minute or two the first time ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
	@echo "Installed."

lint: $(INSTALLED) ## ruff: rules and format
	$(call say,ruff check)
	@$(BIN)/ruff check .
	$(call say,ruff format --check)
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy, strict
	$(call say,mypy)
	@$(BIN)/mypy
	@$(BIN)/mypy topologies

imports: $(INSTALLED) ## import-linter: who may import whom
	$(call say,lint-imports)
	@$(BIN)/lint-imports --no-logo

doctests: $(INSTALLED) ## the examples in the library's docstrings
	$(call say,pytest --doctest-modules streamstate)
	@$(BIN)/python -m pytest --quiet --doctest-modules streamstate

pytest: pytest-others pytest-broker pytest-sessions ## all tests, those on a real broker included; TESTS= for some

# Which tests go to a process together is in tests/conftest.py. Exit code 5: TESTS= has none of them.
XDIST := --dist loadscope --no-loadscope-reorder --durations 10

pytest-broker: $(INSTALLED) ## those on a real broker; WAITING_JOBS= processes
	$(call say,pytest -m broker $(TESTS))
	@$(BIN)/python -m pytest --numprocesses $(WAITING_JOBS) $(XDIST) -m 'broker and not chaos and not rights and not sessions' $(TESTS) || { test $$? -eq 5 && test '$(TESTS)' != tests; }

pytest-sessions: $(INSTALLED) ## those on a broker that nothing may run beside: a session's time-out decides them
	$(call say,pytest -m sessions $(TESTS))
	@$(BIN)/python -m pytest --durations 10 -m sessions $(TESTS) || { test $$? -eq 5 && test '$(TESTS)' != tests; }

pytest-others: $(INSTALLED) ## those without; JOBS= processes
	$(call say,pytest -m 'not broker' $(TESTS))
	@$(BIN)/python -m pytest --numprocesses $(JOBS) $(XDIST) -m 'not broker and not chaos' $(TESTS) || { test $$? -eq 5 && test '$(TESTS)' != tests; }

format: $(INSTALLED) ## mend what ruff can mend
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: $(INSTALLED) ## beside Kafka Streams, Quix Streams and hand-written loops; about 20 minutes
	@$(BIN)/python -m benchmarks --minutes 15 $(BENCH)

bench-quick: $(INSTALLED) ## the same with few records and workloads; about 3 minutes
	@$(BIN)/python -m benchmarks --quick $(BENCH)

profile: $(INSTALLED) ## flame graph of our worker; WORKLOAD=count-update
	@$(BIN)/python -m benchmarks --profile $(WORKLOAD) $(BENCH)

clean: ## delete .venv, caches and builds
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find streamstate cli topologies tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +
