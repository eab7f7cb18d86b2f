# All tasks, for people and CI. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMMANDS := $(addprefix $(BIN)/,gravingdock docker-credential-gravingdock gravingdock-verify)
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2
BUILT_BENCHES := ingest lineage api token match rescan admission

.DEFAULT_GOAL := help
.PHONY: help system setup up demo down logs status test test-again test-long mutants lint fmt docs bench kubernetes lock image assets

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

system: ## install missing Debian packages (needs root or sudo; otherwise prints the command and exits with 3)
	@$(PYTHON) config/embedded/system.py

setup: system $(VENV)/locked $(COMMANDS) ## install Debian packages and create .venv/

$(VENV)/locked: requirements/dev.txt
	@echo "Installing Python packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@cp requirements/dev.txt $@

# The commands of `pyproject.toml` for a checkout. They run from any folder.
$(BIN)/gravingdock: RUNS := lifecycle.cli
$(BIN)/docker-credential-gravingdock: RUNS := lifecycle.cli credential-helper
$(BIN)/gravingdock-verify: RUNS := gravingdock_verify
$(COMMANDS): $(VENV)/locked
	@printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s/$(BIN)/python" -m $(RUNS) "$$@"\n' "$(CURDIR)" "$(CURDIR)" > $@
	@chmod +x $@

up: setup ## start everything in the background and run the demonstration once (DEMO=0 skips it)
	@$(BIN)/python -m config.embedded up

demo: setup ## run the demonstration again from the beginning
	@$(BIN)/python -m config.embedded demo

down: ## stop everything; all data is kept
	@if test -x $(BIN)/python; then $(BIN)/python -m config.embedded down; else echo "Nothing to stop: Gravingdock is not installed yet."; fi

status: ## show the state of each service
	@$(BIN)/python -m config.embedded status

logs: ## follow the logs of all services
	@$(BIN)/python -m config.embedded logs

# Each process has its own servers. The tests run in file order, always the same; `test-long` shuffles them.
test: setup ## run all tests except the long ones
	@$(BIN)/python config/embedded/system.py --tests
	@rm -f .pytest_cache/exit
	@$(BIN)/python -m pytest -p no:randomly -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		-m "not long" $(PYTEST_ARGS) || { code=$$?; mkdir -p .pytest_cache; echo $$code > .pytest_cache/exit; exit $$code; }

test-again: setup ## run what failed in the last `make test` once more, alone; more than 5 failures stay failures
	@$(BIN)/python -m tests.again

test-long: setup ## run all tests, one by one, in random order, then 300 mutants (SEED=1 chooses others)
	@$(BIN)/python config/embedded/system.py --tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)
	@$(BIN)/python -m tests.mutants --sample 300 --seed $(or $(SEED),1) --minutes 60

mutants: setup ## change the code of permissions, tokens, promotion, jobs and policy in small ways; a test must notice (hours)
	@$(BIN)/python config/embedded/system.py --tests
	@$(BIN)/python -m tests.mutants $(MUTANT_ARGS)

lint: setup ## check style, types, import contracts, migrations and docs/reference/
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tests/with_settings.py $(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tests/with_settings.py $(BIN)/python manage.py makemigrations --check --dry-run -v0
	@$(BIN)/python tests/with_settings.py $(BIN)/python docs/generate.py --check

docs: setup ## generate docs/reference/ from the code
	@$(BIN)/python tests/with_settings.py $(BIN)/python docs/generate.py

fmt: setup ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

assets: ## rebuild vendor files and icons of the pages (needs Node 20; commit the result)
	@npm ci --no-audit --no-fund --silent
	@npm run --silent assets

bench: setup ## run benchmarks; prints tables, writes JSON to var/bench/ (BENCHES="lineage api", IMAGES=100000)
	@status=0; for name in $(or $(BENCHES),$(BUILT_BENCHES)); do \
		$(BIN)/python manage.py bench $$name --images $(or $(IMAGES),10000) \
			--save $(or $(GRAVINGDOCK_HOME),var)/bench/$$name-$(or $(IMAGES),10000).json || status=$$?; \
	done; exit $$status

kubernetes: ## build a real API server for its tests, once, outside the clone (needs Go; 14 CPU minutes)
	@deploy/kubernetes.sh

lock: setup ## write requirements/*.txt from pyproject.toml, with versions and hashes
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra embedded --extra agent --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate -o requirements/runtime.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --extra embedded --extra agent --group dev -c requirements/runtime.txt --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate -o requirements/dev.txt

image: system ## build the container image with buildah (BASE=<image with Python 3.11 or later>, TAG=gravingdock:local)
	@buildah build --isolation chroot $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_ARGS) -f deploy/Containerfile -t $(or $(TAG),gravingdock:local) .
