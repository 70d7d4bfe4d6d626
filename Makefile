.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
.PHONY: help run test check check-ledger infra package deploy bench fmt lint lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

run: .venv/.local ## serve on http://127.0.0.1:8000 (with the simulator if no provider credentials are set)
	@$(BIN)/python -m local.host

test: .venv/.dev ## run every test
	@$(BIN)/python -m pytest

fmt: .venv/.dev ## format the tree and mend what the linter can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix --quiet .

lint: .venv/.dev ## ruff and mypy over the whole tree, and the shipped catalog
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy . && $(BIN)/python -m local.cli catalog check

check: lint infra test ## what CI runs

check-ledger: .venv/.dev ## simulate the ledger for 5,000 seeds, then see that every planted fault is caught
	@$(BIN)/python -m tests.ledger.check --seeds 5000 --jobs 2 && $(BIN)/python -m tests.ledger.mutants

infra: .venv-infra/.ready .venv-checkov/.ready ## check infra/terraform: format, validate, test, security rules
	@.venv-infra/bin/python -m tests.infra.check_terraform

package: .venv/bin/python ## make the package that Azure is sent, and say what is in it
	@$(BIN)/python -m deploy package

deploy: .venv/bin/python ## publish the code to the function app that Terraform made (needs az and terraform)
	@$(BIN)/python -u -m deploy publish

bench: .venv/.dev ## measure against a bare pass-through and, if it installs, LiteLLM (needs cc)
	@$(BIN)/python -m tests.bench.run
	@$(BIN)/python -m tests.bench.ledger

lock: .venv/.dev ## pin every transitive dependency anew in constraints.txt
	@$(BIN)/pip install --quiet uv && (echo "# Every transitive dependency, pinned. Remade by: make lock"; \
	  sed '/^-c /d' requirements.txt > .venv/direct.txt; \
	  sed -e 's/^-r requirements-local.txt//' requirements-dev.txt >> .venv/direct.txt; \
	  sed -e '/^-r /d' requirements-local.txt >> .venv/direct.txt; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header .venv/direct.txt) > .venv/constraints.txt \
	  && mv .venv/constraints.txt constraints.txt

clean: ## forget the environment and the local state
	@rm -rf .venv .venv-infra .venv-checkov .switchyard .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Switchyard needs Python 3.11 or newer")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; } # half of one would pass for whole

.venv/.local: .venv/bin/python requirements.txt requirements-local.txt constraints.txt
	@echo "Installing what the local host needs into .venv (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-local.txt && touch $@

.venv/.dev: .venv/.local requirements-dev.txt
	@echo "Installing what tests and linters need into .venv (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt && touch $@

# Each in an environment of its own: what checks Terraform needs other versions of what we use.
.venv-infra/.ready: tests/infra/requirements.txt
	@echo "Installing what checks Terraform into .venv-infra (once) …"
	@$(PYTHON) -m venv --clear .venv-infra && .venv-infra/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@

.venv-checkov/.ready: tests/infra/requirements-checkov.txt
	@echo "Installing checkov into .venv-checkov (once) …"
	@$(PYTHON) -m venv --clear .venv-checkov && .venv-checkov/bin/python -m pip install --quiet --disable-pip-version-check -r $< && touch $@
