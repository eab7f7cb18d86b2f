# One door for people and CI. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
BUILT_BENCHES := ingest lineage api token match

.DEFAULT_GOAL := help
.PHONY: help system setup up demo down logs status test test-long lint fmt docs bench lock image assets

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

system: ## install the missing Debian packages (root or sudo; else prints the command and stops with 3)
	@$(PYTHON) config/embedded/system.py

setup: system $(VENV)/locked $(BIN)/gravingdock ## the Debian packages and .venv/

$(VENV)/locked: requirements/dev.txt
	@echo "Installing Python packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@cp requirements/dev.txt $@

# The command of `pyproject.toml`, for a checkout: it runs from any folder.
$(BIN)/gravingdock: $(VENV)/locked
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/$(BIN)/python" -m lifecycle.cli "$$@"\n' "$(CURDIR)" "$(CURDIR)" > $@
	@chmod +x $@

up: setup ## start everything in the background and run the demonstration once (DEMO=0 skips it)
	@$(BIN)/python -m config.embedded up

demo: setup ## the demonstration again, from the beginning
	@$(BIN)/python -m config.embedded demo

down: ## stop everything; nothing is left running, nothing is lost
	@if test -x $(BIN)/python; then $(BIN)/python -m config.embedded down; else echo "Nothing is installed, so nothing runs."; fi

status: ## what runs
	@$(BIN)/python -m config.embedded status

logs: ## follow the logs of every part
	@$(BIN)/python -m config.embedded logs

# Each process has servers of its own. The order is the files' own, the same for everybody: `test-long` shuffles.
test: setup ## every test but the long ones
	@$(BIN)/python config/embedded/system.py --tests
	@$(BIN)/python -m pytest -p no:randomly -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		-m "not long" $(PYTEST_ARGS)

test-long: setup ## the long tests too, one after the other, in another order each time
	@$(BIN)/python config/embedded/system.py --tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup ## style, types, import contracts, missing migrations, stale reference
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tests/with_settings.py $(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/with_settings.py $(BIN)/python manage.py makemigrations --check --dry-run -v0
	@$(BIN)/python tests/with_settings.py $(BIN)/python docs/generate.py --check

docs: setup ## write docs/reference/ from the code
	@$(BIN)/python tests/with_settings.py $(BIN)/python docs/generate.py

fmt: setup ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

assets: ## rebuild the vendor files and icons of the pages (needs Node 20; the result is committed)
	@npm ci --no-audit --no-fund --silent
	@npm run --silent assets

bench: setup ## measure: a table for each bench, the same as JSON below var/bench (BENCHES="lineage api", IMAGES=100000)
	@status=0; for name in $(or $(BENCHES),$(BUILT_BENCHES)); do \
		$(BIN)/python manage.py bench $$name --images $(or $(IMAGES),10000) \
			--save $(or $(GRAVINGDOCK_HOME),var)/bench/$$name-$(or $(IMAGES),10000).json || status=$$?; \
	done; exit $$status

lock: setup ## write requirements/*.txt anew from pyproject.toml: versions and hashes, no host
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra embedded --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate -o requirements/runtime.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra embedded --group dev -c requirements/runtime.txt --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate -o requirements/dev.txt

image: system ## the container image, by buildah: BASE=<an image with Python 3.11 or later>, TAG=gravingdock:local
	@buildah build --isolation chroot $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_ARGS) -f deploy/Containerfile -t $(or $(TAG),gravingdock:local) .
