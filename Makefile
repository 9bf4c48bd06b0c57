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
.PHONY: help setup export-int8 test test-ray python313 test-python313 test-clients lint bench clean

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

# Ray needs NumPy 2, which the exporters of Python 3.10 and 3.11 do not have: its tests have an environment of their own.
$(VENV)-ray/installed: setup.cfg pyproject.toml | $(VENV)/installed
	@$(PYTHON) -m venv $(VENV)-ray
	@$(VENV)-ray/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[ray,eval,onnx]' 'pytest>=8' \
	  && touch $@ || echo "make: pip cannot install Ray here: its tests are skipped"

test-ray: $(VENV)-ray/installed ## Run the tests with a local Ray cluster (part of make test)
	@if [ -e $(VENV)-ray/installed ]; then $(VENV)-ray/bin/python -m pytest tests/evaluation/test_ray.py; fi

# From Python 3.12 on, other versions of the exporters are installed than before: an environment of its own.
PYTHON313 ?= $(shell for p in python3.13 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.13.*/bin/python; do \
  $$p -c '$(SUITABLE)' 2>/dev/null && { command -v $$p; exit; }; done)
FAST_TESTS := tests/calibration tests/models/test_checkpoint.py tests/models/test_variants.py \
  $(addprefix tests/export/,test_graphs.py test_tflite_export.py test_sam_layout.py) \
  $(addprefix tests/runtime/,test_real_model.py test_segmenter.py test_engines.py test_sam.py)

python313:
	@test -n "$(PYTHON313)" || { echo "make: no python3.13 found, also not pyenv's: name one with PYTHON313=" >&2; exit 1; }

test-python313: python313 ## Export with Python 3.13 and its versions of the exporters, and run the fast tests with them
	$(MAKE) export-int8 PYTHON=$(PYTHON313) VENV=$(VENV)-python313 OUT=build/python313
	TINYSAM_MODEL=build/python313/nano-448 $(VENV)-python313/bin/python -m pytest $(FAST_TESTS)

# Programs for SAM want other versions of the same packages. PyTorch is for the package segment-anything only.
$(VENV)-clients/installed: setup.cfg | $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[onnx]' \
	  torch==2.13.0 x-anylabeling-cvhub==4.2.1 osam==0.8.1
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  torchvision==0.28.0 segment-anything==1.0 samexporter==0.5.0
	@touch $@

test-clients: $(VENV)-clients/installed ## Load nano in SAM's layout with the programs that it is for, and compare masks
	$(VENV)/bin/tinysam-export --layout sam --out $(OUT)
	QT_QPA_PLATFORM=offscreen $(VENV)-clients/bin/python tests/clients/prove.py $(OUT)/nano-448 $(OUT)/nano-448-sam

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
