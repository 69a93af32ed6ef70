# A fresh machine needs Python >= 3.11, git and make; `make setup` brings the rest.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PORT ?= 5000
BIN := $(CURDIR)/.venv/bin
# dvc.yaml and MLproject say `python`: it must be the environment's.
RUN := PATH="$(BIN):$$PATH" MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true

.PHONY: help setup repro results test check lint format-check types format ui lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed ## Make .venv and install the pinned dependencies and the project

repro: setup ## Run the pipeline: whatever has changed, and nothing else
	@$(RUN) dvc --wait-for-lock repro

results: setup ## Write the figures of metrics/ into README's table: right after a run, as `make repro results`
	@$(RUN) diptych results --readme README.md --metrics metrics

test: check ## Run every check and the whole test suite
	@$(RUN) pytest -n auto --maxprocesses 4 --dist loadfile

check: lint format-check types ## Lint, check the format and check the types

lint: setup ## Lint
	@$(RUN) ruff check --quiet

format-check: setup ## Check the format
	@$(RUN) ruff format --quiet --diff

types: setup ## Check the types
	@$(RUN) mypy

format: setup ## Format the code and mend what the linter can mend
	@$(RUN) ruff check --fix --quiet
	@$(RUN) ruff format

ui: setup ## Compare the runs in MLflow on 127.0.0.1:5000 (another port: PORT=5001)
	@$(RUN) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri "sqlite:///$(CURDIR)/mlflow.db"

lock: setup ## Pin the dependencies anew after a change in pyproject.toml (all of them: LOCK=--upgrade)
	@$(RUN) uv pip compile --quiet --universal --generate-hashes --python-version 3.11 $(LOCK) \
		--custom-compile-command "make lock" pyproject.toml --group dev -o requirements.lock

clean: ## Remove the environment and the caches of tools; data, models and runs stay
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

# uv comes from the PATH, or else from the package index by pip, checked against its own hashes.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python must be >= 3.11 (got %d.%d); name another with PYTHON=..." % sys.version_info[:2])'
	@echo "Installing the pinned dependencies into .venv"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@uv=$$(command -v uv) || { \
		awk '/^[^ ]/ { own = /^uv==/ } own' requirements.lock > .venv/uv.txt; \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.txt; \
		uv=.venv/bin/uv; \
	}; \
	$$uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock; \
	$$uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
	@touch $@
