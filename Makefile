# Everything runs in .venv, which is made when it is needed. Only Python 3.11+, git and make are asked for.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

AXE := build/axe/node_modules/axe-core/axe.min.js

.PHONY: help demo test test-browser check docs chaos bench lambda clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.demo ## the whole way, on real parts, in a minute
	@$(BIN)/dims demo

test: .venv/.dev ## all tests but those in a browser, some at once: make test AT_ONCE=1
	@$(BIN)/python -m pytest -n $(or $(AT_ONCE),4) --dist worksteal --ignore tests/browser

test-browser: .venv/.browser $(AXE) ## the page in this machine's own Chromium, with axe-core where there is npm
	@$(BIN)/python -m pytest tests/browser

docs: .venv/.docs ## the documentation as a site in build/site, with generated tables up to date
	@$(BIN)/python docs/generate.py --site build/docs
	@rm -rf build/site
	@$(BIN)/zensical build --strict --clean

check: .venv/.dev ## style, types, arrows between rooms, documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

chaos: .venv/.dev ## everything is killed at random for some minutes, and nothing may be lost: make chaos SEED=7
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

bench: .venv/.dev ## benchmarks, as ratios within one run
	@$(BIN)/python -m benchmarks

lambda: .venv/.demo ## the zip of the S3 Lambda, its size and its cold import time
	@$(BIN)/python -m dims_producers.lambda_zip build/dims-s3-lambda.zip

clean: ## remove what was made; a running machine is stopped first
	@if [ -x $(BIN)/dims ] && [ -d .dims ]; then $(BIN)/dims down; fi
	rm -rf .venv .dims build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "DIMS needs Python 3.11 or later: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.demo

.venv/.docs: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[docs]'
	@touch $@

.venv/.browser: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[browser]'
	@touch $@ .venv/.dev .venv/.demo

$(AXE):
	@if command -v npm >/dev/null; then \
		npm install --no-save --no-audit --no-fund --silent --prefix build/axe axe-core@4.14.1 || \
			echo "npm cannot get axe-core: the tests with it are skipped" >&2; \
	else echo "no npm here: the tests with axe-core are skipped" >&2; fi
