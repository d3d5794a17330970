# `make test` and `make demo` set up everything they need, from a fresh clone with make and python3 (>= 3.11, with venv).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test parity recipes plans lint clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON_M := $(BIN)/python -m imagen_jax.
PYTEST_WORKERS ?= 2

# The first interpreter that is new enough and can make a virtual environment. PYTHON=... overrides.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)

EXTRAS_test := test,demo
EXTRAS_demo := demo
EXTRAS_parity := test,demo,parity
EXTRAS_tpu := tpu

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

# The commands of the README, one after the other; run again, each goes on where it stopped.
demo: $(VENV)/.installed-demo ## train a small cascade on captioned pictures and sample from it (two cores: 20 minutes)
	@$(PYTHON_M)untrained_encoder --data=emoji/food:train --out=demo/encoder
	@$(PYTHON_M)precompute_text --encoder=demo/encoder --data=emoji/food:train --max_length=24 --out=demo/text
	@$(PYTHON_M)train --config=configs/emoji_base.py:demo --workdir=demo/base
	@$(PYTHON_M)train --config=configs/emoji_sr1.py:demo --workdir=demo/sr1
	@$(PYTHON_M)train --config=configs/emoji_sr2.py:demo --workdir=demo/sr2
	@rm -rf demo/cascade
	@$(PYTHON_M)export --workdirs=demo/base,demo/sr1,demo/sr2 --out=demo/cascade
	@$(PYTHON_M)sample --cascade=demo/cascade --prompts_file=configs/emoji_prompts.txt --out=demo/samples

test: lint ## lint, types, tests
	@$(BIN)/python -m pytest -q -m "not parity" -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

# Apart from `test`, which needs no PyTorch. Its default build for Linux brings gigabytes of CUDA libraries; pip's
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS can point at PyTorch's build without.
parity: $(VENV)/.installed-parity ## compare with PyTorch, transformers, diffusers and three packages of FID
	@$(BIN)/python -m pytest -q -m parity -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

recipes: $(VENV)/.installed-demo ## train the paper's and a modern recipe, compare them in docs/recipes.md (two cores: 2 hours)
	@$(BIN)/python -m benchmarks.recipes

# JAX_PLATFORMS: so that jax doesn't look for the TPU that libtpu is there for.
plans: $(VENV)/.installed-tpu ## compile the paper's stages for TPU slices, without one: docs/plans.md (27 compilations of minutes)
	@JAX_PLATFORMS=cpu $(BIN)/python -m benchmarks.plans

lint: $(VENV)/.installed-test ## ruff and pyright
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet --diff
	@$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## remove the virtual environment and all caches
	@rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache build dist imagen_jax.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv found (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# One environment for all; a stamp for each set of extras, older than setup.py when that changes.
$(VENV)/.installed-%: $(VENV)/.made setup.py
	@echo "installing imagen_jax[$(EXTRAS_$*)] into $(VENV) ..."
	@$(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install --editable ".[$(EXTRAS_$*)]"
	@touch $@
