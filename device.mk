# Devices: bundles, emulated ARM, instruction counts, the web page. Included by the Makefile.

DEVICE_MODEL ?=
MODEL ?=
PRECISION ?= int8
WITH_WHEELS ?=
DIST ?= dist
HOST ?=
PORT ?= 8000
MODEL_OPTION = $(if $(DEVICE_MODEL),--model $(DEVICE_MODEL))
BUNDLE_OPTIONS = --out $(DIST) --precision $(PRECISION) $(MODEL_OPTION) $(if $(WITH_WHEELS),--with-wheels)

.PHONY: wheel bundle-rpi bundle-android bundle-web push-rpi push-android test-arm arm-half arm-cost arm-cost-check web web-single

wheel: setup ## The wheel with nano's INT8 files inside: segments at once (MODEL=none: without, MODEL=DIR: another)
	@test -n "$(MODEL)" || test -e $(OUT)/nano-448/manifest.json || $(MAKE) export-int8
	$(PY) -m tinysam.device.bundle.wheel $(DIST) --model $(or $(MODEL),$(OUT)/nano-448)

bundle-rpi: setup ## Archive with installer for a Raspberry Pi (WITH_WHEELS=1: needs no network there)
	$(PY) -m tinysam.device.bundle.cli --target raspberrypi $(BUNDLE_OPTIONS)

bundle-android: setup ## Archive for Android: page in one file, and an installer for Termux
	$(PY) -m tinysam.device.bundle.cli --target android $(BUNDLE_OPTIONS)

bundle-web: setup ## Archive with the web page, for any static web server
	$(PY) -m tinysam.device.bundle.cli --target web $(BUNDLE_OPTIONS)

push-rpi: bundle-rpi ## Copy to a Raspberry Pi and install there: make push-rpi HOST=pi@raspberrypi
	$(PY) -m tinysam.device.bundle.push raspberrypi $(DIST) --host "$(HOST)"

push-android: bundle-android ## Copy to an Android device by adb
	$(PY) -m tinysam.device.bundle.push android $(DIST)

test-arm: setup ## The whole emulated ARM matrix: Debian 12 and 13, Raspberry Pi 4 and 5 (about 20 minutes)
	ARM_MATRIX=docs/raspberry-pi.md $(PY) -m pytest tests/device

arm-half: setup ## Masks of the fp16 and INT8 files on an emulated Cortex-A76, against fp32 (ARGS="--count 3")
	$(PY) -m tinysam.device.arm.half $(MODEL_OPTION) $(ARGS)

arm-cost: setup ## Instructions per inference on a Raspberry Pi 4 and 5 (ARGS="--ops --cpu cortex-a76")
	$(PY) -m tinysam.device.cost.cli --out docs/arm-cost.json --page docs/arm-cost.md $(MODEL_OPTION) $(ARGS)

arm-cost-check: setup ## Count again and name the stages that cost over 1 % more than docs/arm-cost.json says, or are not there
	$(PY) -m tinysam.device.cost.cli --check docs/arm-cost.json $(MODEL_OPTION) $(ARGS)

web: setup ## Build the web page and serve it on this machine (PORT=8000)
	$(PY) -m tinysam.device.bundle.site $(DIST)/web --precision both $(MODEL_OPTION)
	node web/serve.mjs $(DIST)/web $(PORT)

web-single: setup ## The web page as one file that works offline
	$(PY) -m tinysam.device.bundle.site $(DIST)/web-single --single --precision $(PRECISION) $(MODEL_OPTION)
