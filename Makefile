# Everything runs in .venv, which make creates when it is needed. You need Python 3.11+, git and make.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

AXE := build/axe/node_modules/axe-core/axe.min.js

.PHONY: help demo test test-browser check check-types check-others docs coverage wheel chaos mutate bench lambda clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.demo ## see DIMS work on real servers, in a minute
	@$(BIN)/dims demo

test: .venv/.dev ## run all tests except those in a browser, four at once: make test AT_ONCE=1
	@$(BIN)/python -m pytest -n $(or $(AT_ONCE),4) --dist worksteal --ignore tests/browser

test-browser: .venv/.browser $(AXE) ## test the dashboard in this machine's Chromium, with axe-core if npm is installed
	@$(BIN)/python -m pytest tests/browser

docs: .venv/.docs ## build the site of the documentation in build/site, and refresh generated tables
	@$(BIN)/python docs/generate.py --site build/docs
	@rm -rf build/site
	@$(BIN)/zensical build --strict --clean

check: .venv/.dev ## check style, types, imports, docs and the wheel
	@$(MAKE) --no-print-directory --jobs 2 check-types check-others

check-types: .venv/.dev
	$(BIN)/mypy
	$(BIN)/mypy -p tests

# To collect the tests once compiles them, so that the processes of `make test` do not each do so.
check-others: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs
	$(BIN)/python -m pytest --collect-only -qq --ignore tests/browser
	@$(MAKE) --no-print-directory wheel

coverage: .venv/.dev ## show which lines the unit tests run; fails below the floor in pyproject.toml
	@$(BIN)/python -m pytest tests/unit -q -n $(or $(AT_ONCE),4) --cov --cov-report=term:skip-covered

wheel: .venv/.dev ## build build/wheel/*.whl and check its content
	@rm -rf build/wheel
	@$(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . >/dev/null
	$(BIN)/check-wheel-contents build/wheel

chaos: .venv/.dev ## inject faults for about an hour and check that nothing is lost: make chaos SEED=7 FAULTS=40
	@mkdir -p build
	@$(BIN)/python -m tests.chaos --report build/chaos.md $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS))

mutate: .venv/.dev ## change code at random and list the changes that no test notices: make mutate SEED=7 MUTANTS=20
	@$(BIN)/python -m tests.mutation $(if $(SEED),--seed $(SEED)) $(if $(MUTANTS),--mutants $(MUTANTS)) $(if $(ONLY),--only $(ONLY))

bench: .venv/.dev ## run the benchmarks, which compare two ways within one run
	@$(BIN)/python -m benchmarks

lambda: .venv/.demo ## build the zip of the S3 Lambda, and print its size and cold import time
	@$(BIN)/python -m dims_producers.lambda_zip build/dims-s3-lambda.zip

clean: ## stop DIMS and remove what make created
	@if [ -x $(BIN)/dims ] && [ -d .dims ]; then $(BIN)/dims down; fi
	rm -rf .venv .dims build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .cache
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
			echo "npm cannot install axe-core, so the tests that need it are skipped" >&2; \
	else echo "npm is not installed, so the tests that need axe-core are skipped" >&2; fi
