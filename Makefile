.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check bench clean

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.setup-done

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(SETUP)  ## make .venv and install tlkit into it

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tlkit needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

demo: setup  ## two stages on generated images, on the CPU: from scratch against transferred
	$(BIN)/tlkit fit --config configs/alexnet_split.yaml --name demo --pretrain.layers 0
	$(BIN)/tlkit fit --config configs/alexnet_split.yaml --name demo
	@$(BIN)/tlkit compare $$(ls -td runs/demo/transfer-*/ | head -2 | tac)

test: setup  ## the tests, except the long ones
	$(BIN)/pytest

test-slow: setup  ## the long tests and those that need a system package
	$(BIN)/pytest -rs -m 'slow and not gpu'

check: setup  ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: setup  ## side-by-side timings against other tools
	$(BIN)/python benchmarks/training_loop.py
	$(BIN)/python benchmarks/ema.py
	$(BIN)/python benchmarks/update_ratio.py
	$(BIN)/python benchmarks/energy.py
	$(BIN)/python benchmarks/full_set.py
	$(BIN)/python benchmarks/report.py --output benchmarks/results/report.md  # 1 minute
	$(BIN)/python benchmarks/study_engine.py --output benchmarks/results/study_engine.md  # 13 minutes
	$(BIN)/python benchmarks/study.py --output benchmarks/results/study.md  # 35 minutes
	$(BIN)/python benchmarks/study.py --splits 8 --at-once 8 --arms engine process --output benchmarks/results/study_whole.md

clean:  ## remove the environment and caches, not the runs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
