# TinySAM Edge. `make help` lists the targets; every target does its own set-up.

VENV ?= .venv
# The newest Python that every exporter has wheels for and that can make environments; uv fetches one if it is there.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.10 python3; do \
  $$p -c '$(SUITABLE)' 2>/dev/null && { command -v $$p; exit; }; done; \
  command -v uv >/dev/null && uv python install --quiet 3.13 >&2 && uv python find 3.13)
PY := $(VENV)/bin/python
define NO_PYTHON
$(or $(PYTHON:%=%: ),)Python 3.10 to 3.13 with venv is needed: sudo apt install python3-venv (Debian 12 and 13, Ubuntu 22.04 and \
24.04), sudo dnf install python3.13 (Fedora), brew install python@3.13 (macOS), or uv, which make then uses (elsewhere, \
and where there is 3.14 only: it runs the models, but TensorFlow has no release for it)
endef
PACKAGES := models export calibration runtime datasets distillation evaluation device

# What is exported; `make export-int8 VARIANT=tinysam CHECKPOINT=tinysam.pth CALIB=photos/`
VARIANT ?= nano
CHECKPOINT ?=
SIZE ?=
CALIB ?=
TARGET ?= arm
RANGES ?= mse
MAX_DROP ?=
OUT ?= artifacts

.DEFAULT_GOAL := help
.PHONY: help setup export-int8 test test-ray lint bench clean

help: ## Show this help
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/installed: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(SUITABLE)' 2>/dev/null || { echo "make: $(NO_PYTHON)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[export,train,eval,dev]'
	@touch $@

setup: $(VENV)/installed ## Create the environment with everything in it

export-int8: setup ## Export a model (fp32 and INT8, ONNX and TFLite) and segment a photograph with it
	$(VENV)/bin/tinysam-export --variant $(VARIANT) --target $(TARGET) --ranges $(RANGES) --out $(OUT) \
	  $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(if $(SIZE),--size $(SIZE)) $(if $(CALIB),--calib-dir $(CALIB)) \
	  $(if $(MAX_DROP),--max-drop $(MAX_DROP))
	@$(PY) -m tinysam.export.demo --variant $(VARIANT) $(if $(SIZE),--size $(SIZE)) --artifacts $(OUT)

# Ray needs another NumPy than the exporters, so its tests have an environment of their own.
$(VENV)-ray/installed: setup.cfg pyproject.toml | $(VENV)/installed
	@$(PYTHON) -m venv $(VENV)-ray
	@$(VENV)-ray/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ray,eval,onnx]' 'pytest>=8' \
	  && touch $@ || echo "make: pip cannot install Ray here: its tests are skipped"

test-ray: $(VENV)-ray/installed ## Run the tests with a local Ray cluster (part of make test)
	@if [ -e $(VENV)-ray/installed ]; then $(VENV)-ray/bin/python -m pytest tests/evaluation/test_ray.py; fi

test: setup test-ray ## Run the tests
	$(PY) -m pytest

lint: setup ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/tinysam
	@for p in $(PACKAGES); do ln -s ../../../$$p build/types/tinysam/$$p; done
	MYPYPATH=build/types $(VENV)/bin/mypy $(foreach p,$(PACKAGES),-p tinysam.$(p))

bench: setup ## Measure encoder and decoder in every engine, against eager PyTorch
	$(PY) -m tinysam.export.bench

clean: ## Remove artifacts and build output (not the environment)
	rm -rf artifacts build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

-include device.mk
