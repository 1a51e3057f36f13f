# Every target makes its own virtual environment first; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test check slice fixtures bench clean

demo: $(VENV)/.installed
	$(BIN)/lancet-onnx demo

test: $(VENV)/.tested
	$(BIN)/python -m pytest -n 2

# What CI runs; nothing runs there that does not run here.
check: $(VENV)/.tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# Small architectures that touch every operator of docs/coverage.md, built and compared.
slice: $(VENV)/.tested
	$(BIN)/python tests/parity/corpus.py slice

fixtures: $(VENV)/.tested
	$(BIN)/python fixtures/build.py --check

# Real models, e.g. make bench CASES=../shared/cases
CASES ?= ../shared/cases
bench: $(VENV)/.installed
	$(BIN)/python tests/bench/cases.py --cases $(CASES)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet -c constraints.txt --group dev
	touch $@

clean:
	rm -rf $(VENV) build dist lancet-demo
