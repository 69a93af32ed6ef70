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

.PHONY: help setup preset repro seeds results bench bench-bundle bench-peers test test-faults soak check lint format-check types format ui serve screenshots lock lock-peers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed ## Make .venv and install the pinned dependencies and the project

preset: setup ## Set params.yaml to a preset, as `make preset NAME=quality`; without a name, list them
	@$(RUN) diptych $(if $(NAME),preset "$(NAME)",presets)

repro: setup ## Run the pipeline: whatever has changed, and nothing else
	@$(RUN) diptych repro

seeds: setup ## Run the pipeline with several seeds, as `make seeds N=5`: mean and s.d. of each figure
	@$(RUN) diptych seeds --num "$(or $(N),5)" $(if $(FIRST),--first-seed "$(FIRST)")

results: setup ## Write the figures of metrics/ and benchmarks/results/ into README: right after a run, as `make repro results`
	@$(RUN) diptych results --readme README.md --metrics metrics
	@$(RUN) python -m benchmarks readme

bench: setup ## Measure quality and speed of every preset (in part: BUDGET=600 seconds, ONLY='cnn/* vae/default')
	@$(RUN) python -m benchmarks.prepare $(if $(ONLY),'$(ONLY)')
	@$(RUN) python -m benchmarks $(if $(BUDGET),--budget "$(BUDGET)") $(if $(ONLY),--only '$(ONLY)')

bench-bundle: setup ## Write diptych-bench.pyz, the same for a machine that has but torch, numpy and pydantic
	@$(RUN) python -m benchmarks.bundle benchmarks/diptych-bench.pyz

bench-peers: setup .venv-peers/.installed ## Time the article's Keras program and a stock loop beside this project
	@$(MAKE) bench ONLY='peers/*'

test: check ## Run every check and the whole test suite
	@$(RUN) pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 15

test-faults: setup ## Try every promise of docs/reliability.md as often as its target says, and write the table (some again: ONLY=test_states)
	@$(RUN) DIPTYCH_FAULTS=full DIPTYCH_RELIABILITY=docs/reliability.json \
		$(if $(ONLY),DIPTYCH_RELIABILITY_UPDATE=1) pytest tests/faults $(if $(ONLY),-k "$(ONLY)")
	@$(RUN) python -m tests.faults.reliability docs/reliability.json docs/reliability.md

soak: setup ## The same ten times as often, and no table
	@$(RUN) DIPTYCH_FAULTS=soak pytest tests/faults

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
	@$(RUN) diptych ui --port $(PORT)

serve: PORT = 5001
serve: setup ## Serve the pair's champion on 127.0.0.1:5001 (another port: PORT=5002; another model: MODEL=cnn)
	@$(RUN) diptych serve $(or $(MODEL),pair) --port $(PORT)

screenshots: .venv-screenshots/.installed ## Take the pictures of docs/images anew, of a small demonstration
	@$(RUN) .venv-screenshots/bin/python docs/screenshots.py docs/images

lock: setup ## Pin the dependencies anew after a change in pyproject.toml (all of them: LOCK=--upgrade)
	@$(RUN) uv pip compile --quiet --universal --generate-hashes --python-version 3.11 $(LOCK) \
		--custom-compile-command "make lock" pyproject.toml --group dev -o requirements.lock
	@$(RUN) uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--constraint requirements.lock --custom-compile-command "make lock" \
		deploy/requirements.in -o deploy/requirements.lock

lock-peers: setup ## Pin the article's own environment anew (all of it: LOCK=--upgrade)
	@$(RUN) uv pip compile --quiet --universal --generate-hashes --python-version 3.11 $(LOCK) \
		--custom-compile-command "make lock-peers" benchmarks/peers/requirements.in -o requirements-peers.lock

clean: ## Remove the environment and the caches of tools; data, models and runs stay
	@rm -rf .venv .venv-peers .venv-screenshots .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Bytecode is written at once: under PYTHONDONTWRITEBYTECODE, which container images like to set, every
# process would compile torch anew.
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
	$$uv pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements.lock; \
	$$uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
	@touch $@

.venv-peers/.installed: requirements-peers.lock | setup
	@echo "Installing TensorFlow into .venv-peers"
	@test -x .venv-peers/bin/python || $(RUN) uv venv --quiet --python "$(BIN)/python" .venv-peers
	@$(RUN) uv pip sync --quiet --compile-bytecode --python .venv-peers/bin/python --require-hashes requirements-peers.lock
	@touch $@

.venv-screenshots/.installed: pyproject.toml | setup
	@test -x .venv-screenshots/bin/python || $(RUN) uv venv --quiet --python "$(BIN)/python" .venv-screenshots
	@$(RUN) uv pip install --quiet --python .venv-screenshots/bin/python --group screenshots
	@touch $@
