# make install      a virtual environment in .venv with everything the tests and the examples need
# make quickstart   the main job on the embedded data set, from training to report, in a few minutes
# make docs         the site, in site/
# make test         lint, types and the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What is imported is compiled once and kept, as pip does not compile it, also where the environment says otherwise:
# without it each process compiles PyTorch and Lightning anew, and starts in 24 s of processor time instead of 9.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install quickstart docs test

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/pushpull run quickstart

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

test: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist worksteal
