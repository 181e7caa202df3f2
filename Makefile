# `make demo` and `make test` are all that a newcomer needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help venv venv-torch demo test quick formal soak bench-full pythons check clean preflight ulx3s check-bitstreams

help:
	@echo "make demo    a ternary language model on simulated RTL, compared with the emulator"
	@echo "make test    all tests"
	@echo "make quick   those that need no simulator, no synthesis and no torch: under a minute"
	@echo "make formal  the proofs alone (part of make test)"
	@echo "make pythons the installed package on every Python from 3.10 to 3.13 that is found"
	@echo "make bench-full  full-size models on simulated RTL: hours; see docs/benchmarks.md"
	@echo "make ulx3s   the bitstream of the ULX3S-85F into out/ulx3s: up to an hour"
	@echo "make check-bitstreams  bitstreams/ against its manifests and the gateware of today"
	@echo "make soak    more accelerators of drawn parameters (CASES=100, SEED, or one CASE)"
	@echo "make check   lint and types"
	@echo "make venv    the environment alone (make venv-torch adds the float32 reference)"
	@echo "make clean   remove the environment and build products"

preflight:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: install Python 3.11 or later" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than 3.11: run make PYTHON=python3.11 (or later)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: $(PYTHON) has no venv module: install it (python3-venv)" >&2; exit 2; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null || \
		{ echo "make: $$tool is missing: install it from your system's packages" >&2; exit 2; }; done

# The stamps hold the environment together: a changed pyproject.toml installs again.
$(VENV)/.stamp: pyproject.toml | preflight
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.stamp-torch: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[oracle]'
	@touch $@

venv: $(VENV)/.stamp

venv-torch: $(VENV)/.stamp-torch

demo: $(VENV)/.stamp
	@$(BIN)/terntable demo

test: $(VENV)/.stamp-torch
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests

quick: $(VENV)/.stamp
	$(BIN)/python -m pytest -n $(JOBS) @tests/quick.txt

formal: $(VENV)/.stamp
	$(BIN)/python -m pytest -n $(JOBS) -m formal tests/formal tests/sim/test_formal.py

# Minutes to an hour each; finished runs are kept, NAME="..." chooses some.
bench-full: $(VENV)/.stamp
	$(BIN)/python -m terntable.host.bench.full $(NAME)

# Other parameters with every SEED; a failure prints the CASE that it takes to see it again.
SOAK := $(CURDIR)/out/soak
soak: $(VENV)/.stamp
	@mkdir -p $(SOAK)
	@if [ -n "$$CASE" ]; then printf -- '- %s\n' "$$CASE"; else \
		seed=$${SEED:-$$(date +%s)}; echo "SEED=$$seed" >&2; \
		$(BIN)/python -m tests.pairwise $${CASES:-100} $$seed; fi > $(SOAK)/cases.yaml
	@TERNTABLE_CACHE=$(SOAK) TERNTABLE_SOAK=$(SOAK)/cases.yaml \
		$(BIN)/python -m pytest -n $(JOBS) tests/soak.py

ulx3s: $(VENV)/.stamp
	$(BIN)/terntable build --board ulx3s --out out/ulx3s

check-bitstreams: $(VENV)/.stamp
	$(BIN)/python -m terntable.host.flows.committed bitstreams

pythons: $(VENV)/.stamp
	TERNTABLE_PYTHONS="$$(for n in 10 11 12 13; do command -v python3.$$n; done | xargs)" \
		$(BIN)/python -m pytest -m "not slow" tests/test_package.py

check: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist out *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
