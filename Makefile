# Hanse. `make demo` and `make test` do all set-up on a machine with Python 3.11+ (venv), git and make.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
BASE_STAMP := .venv-base/.ready
TORCH_STAMP := .venv-torch/.ready
TORCH_PIP ?=
SLURM_TESTS := .venv-base/bin/python -m pytest -c tests/base.ini --rootdir . --confcutdir=tests/slurm tests/slurm
RAY_STAMP := .venv-ray/.ready
RAY_TESTS := .venv-base/bin/python -m pytest -c tests/base.ini --rootdir . --confcutdir=tests/ray tests/ray
KUBERNETES := $${HANSE_KUBERNETES:-$$HOME/.cache/hanse/kubernetes}/bin/kube-apiserver
KUBERNETES_TESTS := .venv-base/bin/python -m pytest -c tests/base.ini --rootdir . --confcutdir=tests/kubernetes tests/kubernetes
PYTEST := $(BIN)/python -m pytest
SHARED := -n auto --maxprocesses 4  # tests that do not mind neighbours, on the cores there are

.PHONY: help setup demo run test test-unit test-base test-torch test-postgres test-e2e test-present test-slurm test-ray test-kubernetes check fmt lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP)  ## make .venv with everything a developer needs

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Hanse needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	@rm -f $(STAMP)
	@PYTHON='$(PYTHON)' sh deploy/install.sh .venv requirements/dev.txt
	@touch $(STAMP)

$(BASE_STAMP): requirements/base-test.txt pyproject.toml
	@rm -f $(BASE_STAMP)
	@PYTHON='$(PYTHON)' sh deploy/install.sh .venv-base requirements/base-test.txt
	@touch $(BASE_STAMP)

$(TORCH_STAMP): requirements/torch.txt requirements/base-test.txt pyproject.toml
	@rm -f $(TORCH_STAMP)
	@PYTHON='$(PYTHON)' sh deploy/install.sh .venv-torch requirements/base-test.txt
	@if .venv-torch/bin/python -m pip install --quiet $(TORCH_PIP) -r requirements/torch.txt; \
	then touch $(TORCH_STAMP); \
	else echo "The frameworks cannot be installed here: tests that need them are skipped."; fi

$(RAY_STAMP): requirements/ray.txt
	@rm -f $(RAY_STAMP)
	@$(PYTHON) -m venv .venv-ray
	@.venv-ray/bin/python -m pip install --quiet --require-hashes -r requirements/ray.txt
	@touch $(RAY_STAMP)

demo: setup  ## three datacenters trade real training jobs, from nothing
	@$(BIN)/hanse demo

run: setup  ## a federation that stays up, with the web UI at a printed address
	@$(BIN)/hanse up

test: test-base test-unit test-postgres test-e2e test-present  ## everything, set-up included, without root
	@echo "All parts of the tests passed."

test-base: $(BASE_STAMP)  ## the agent and the tenants' side on the base install alone
	.venv-base/bin/python -m pytest -c tests/base.ini --rootdir . tests/agents tests/hanse

test-torch: $(TORCH_STAMP)  ## the training loops' callbacks on real frameworks, CPU only, in their own environment
	.venv-torch/bin/python -m pytest -c tests/torch.ini --rootdir . tests/torch || [ $$? -eq 5 ]  # 5: all skipped

test-present: $(BASE_STAMP)  ## real local schedulers, as far as their software is on this machine
	@if PATH=$$PATH:/usr/sbin command -v slurmctld >/dev/null; then $(SLURM_TESTS); \
	else echo "Slurm is not installed here: 'make test-slurm' installs it and runs its tests."; fi
	@if [ -f $(RAY_STAMP) ]; then $(RAY_TESTS); \
	else echo "Ray is not installed here: 'make test-ray' installs it and runs its tests."; fi
	@if [ -x "$(KUBERNETES)" ]; then $(KUBERNETES_TESTS); \
	else echo "Kubernetes is not built here: 'make test-kubernetes' builds it and runs its tests."; fi

test-slurm: $(BASE_STAMP)  ## the agent on two real Slurm clusters, which apt installs (root)
	sh deploy/install-slurm.sh
	$(SLURM_TESTS)

test-ray: $(BASE_STAMP) $(RAY_STAMP)  ## the agent on a real Ray head, which has an environment of its own
	$(RAY_TESTS)

test-kubernetes: $(BASE_STAMP)  ## the agent on a real Kubernetes control plane, built once from Debian's source (root)
	sh deploy/install-kubernetes.sh
	$(KUBERNETES_TESTS)

test-unit: setup  ## mathematics, services, API and pages, on SQLite
	$(PYTEST) $(SHARED) tests/economics tests/federation tests/broker tests/docs

test-postgres: setup  ## services, API and pages again, on a real PostgreSQL and a real Valkey
	$(PYTEST) $(SHARED) tests/federation tests/broker --database=postgres

test-e2e: setup  ## the story and the faults with real processes, and the README's commands
	$(PYTEST) tests/e2e

check: setup  ## lint, format, types, import contracts, migrations, deployment settings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python manage.py makemigrations --check --dry-run --settings=broker.settings.test
	HANSE_SECRET_KEY=only-for-this-check-$$(date +%s)-0123456789-abcdefghijklmnop \
	  HANSE_DATABASE_URL=postgres://localhost/hanse HANSE_REDIS_URL=redis://localhost/0 \
	  $(BIN)/python manage.py check --deploy --fail-level WARNING --settings=broker.settings.prod

fmt: setup  ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## pin the dependencies anew, with hashes
	sh deploy/lock.sh

clean:  ## remove what the targets above made
	rm -rf .venv .venv-base .venv-torch .venv-ray .hanse staticfiles .pytest_cache .mypy_cache .ruff_cache .hypothesis
