# Everything a fresh machine with Python 3.11+, git and make needs. `make run` and `make test` set
# themselves up; the first call installs into .venv (a few minutes), later ones start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUM := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(SUM)
DOCS_STAMP := $(VENV)/.docs-$(SUM)

# Where Python may not keep byte code, every process compiles torch again: ten seconds and more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test lab docs lint clean
.DEFAULT_GOAL := run

run: $(STAMP)
	$(BIN)/workbench run --out runs/bundled

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --nbmake --nbmake-timeout=600 notebooks tests

lab: $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[notebooks]'
	$(BIN)/jupyter lab notebooks

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs.yml
	@echo "docs: build/docs/index.html"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

# The name holds a checksum of what is installed from, so a change there installs again.
$(STAMP):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		(echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) found; set PYTHON=" && exit 1)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.installed-* && touch $@

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@rm -f $(VENV)/.docs-* && touch $@

clean:
	rm -rf $(VENV) build runs
