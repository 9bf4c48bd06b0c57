# Devices: bundles, emulated ARM, instruction counts, the web page. Included by the Makefile.

DEVICE_MODEL ?=
PRECISION ?= int8
WITH_WHEELS ?=
DIST ?= dist
HOST ?=
PORT ?= 8000
BUNDLE_OPTIONS = --out $(DIST) --precision $(PRECISION) $(if $(DEVICE_MODEL),--model $(DEVICE_MODEL)) $(if $(WITH_WHEELS),--with-wheels)
MODEL_FOLDER = $(or $(DEVICE_MODEL),artifacts/nano-448)

.PHONY: bundle-rpi bundle-android bundle-web push-rpi push-android test-arm arm-cost web web-single

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

test-arm: setup ## The whole emulated ARM matrix: Debian 12 and 13, Raspberry Pi 4 and 5 (about 15 minutes)
	ARM_MATRIX=docs/raspberry-pi.md $(PY) -m pytest tests/device

arm-cost: setup ## Instructions per inference on a Raspberry Pi 4 and 5 (ARGS="--ops --cpu cortex-a76")
	$(PY) -m tinysam.device.cost.cli --out docs/arm-cost.json --page docs/arm-cost.md $(if $(DEVICE_MODEL),--model $(DEVICE_MODEL)) $(ARGS)

web/node_modules: web/package-lock.json
	@command -v npm >/dev/null || { echo "make: the web page needs Node.js 18 or newer: install nodejs and npm" >&2; exit 1; }
	cd web && npm ci --no-audit --no-fund --silent
	@touch $@

web: setup web/node_modules ## Build the web page and serve it on this machine (PORT=8000)
	cd web && node build.mjs --artifacts=$(abspath $(MODEL_FOLDER)) --out=$(abspath $(DIST))/web --precisions=int8,fp32
	node web/serve.mjs $(DIST)/web $(PORT)

web-single: setup web/node_modules ## The web page as one file that works offline
	cd web && node build.mjs --artifacts=$(abspath $(MODEL_FOLDER)) --out=$(abspath $(DIST))/web-single --single --precisions=$(PRECISION)
