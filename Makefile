# Needs git, make and Python 3.11 to 3.13. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Of the UI.
PORT ?= 3000
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
# Each process would compile the project anew.
export PYTHONDONTWRITEBYTECODE =
# `dg` warns where the environment that it runs in is not the active one.
DG := VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/dg
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
NOT_INSTALLED := { echo "pip could not install; its error is above. It needs PyPI, or the index that PIP_INDEX_URL\
 names: connect this machine to it and run make again"; exit 1; }

.PHONY: help demo dev test torture torture-fleet lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    install, process the sample speech, show the table"
	@echo "make dev     the Dagster UI with sensor and daemon (your bucket: see .env.example; PORT=3001)"
	@echo "make test    install, lint, type-check, test"
	@echo "make torture 200 plans of faults, 100 killed runs, 30 power cuts; about an hour"
	@echo "make torture-fleet  nodes, actors, runs and the head of a Ray cluster killed at random"
	@echo "make bench   the benchmarks; writes the figures that docs/ quotes"
	@echo "make clean   remove the demo's bucket and its Dagster instance"

demo: .venv/installed $(DAGSTER_HOME)/dagster.yaml
	@$(BIN)/python -m audio_assets.demo

dev: .venv/installed $(DAGSTER_HOME)/dagster.yaml
	@mkdir -p demo_bucket
	@exec $(BIN)/python -m audio_assets.services --port $(PORT)

# More than there are cores: the tests of services, of the UI and of Ray wait more than they work.
test: lint
	$(BIN)/python -m pytest -n 4 --dist loadgroup

torture: .venv/installed-test
	$(BIN)/python -m pytest -n 2 $(addprefix audio_assets_tests/,faults test_services.py test_speech.py test_codecs.py \
		test_table_properties.py) --torture

# One after the other: each plays a cluster of several machines on this one.
torture-fleet: .venv/installed-test
	$(BIN)/python -m pytest -n 0 audio_assets_tests/cluster --torture

lint: .venv/installed-test $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/pyright
	$(DG) check toml
	$(DG) check defs

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf demo_bucket .dagster_home

# Whoever names a folder may have an instance there that is configured otherwise, such as on Postgres.
$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@if [ -e $@ ] && [ "$(DAGSTER_HOME)" != "$(CURDIR)/.dagster_home" ]; then touch $@; else cp dagster.yaml $@; fi

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
		sys.exit(None if (3, 11) <= v <= (3, 13) else "$(PYTHON) is Python %d.%d" % v)' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed: name one, such as make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (PyTorch and Dagster take a minute or two) ..."
	@$(PIP) --editable . || $(NOT_INSTALLED)
	@touch $@

.venv/installed-test: .venv/installed
	@echo "Installing what the tests need ..."
	@$(PIP) --editable '.[test,ray]' || $(NOT_INSTALLED)
	@touch $@

.venv/installed-bench: .venv/installed
	@echo "Installing what the benchmarks compare with ..."
	@$(PIP) --editable '.[bench,ray,test]' || $(NOT_INSTALLED)
	@touch $@
