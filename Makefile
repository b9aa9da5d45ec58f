# Two commands matter: `make demo` and `make test`. Everything is kept in .venv; `make clean` removes it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard rotator tests benchmarks deploy)

# Settings of the caller's shell that would change what the environment imports or warns about.
unexport PYTHONHOME PYTHONPATH PYTHONWARNINGS

# The Python version is part of the stamps: another PYTHON makes a new environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
RUN := $(VENV)/.run-$(VERSION)
TEST := $(VENV)/.test-$(VERSION)

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --require-hashes

.DEFAULT_GOAL := help
.PHONY: help demo test check bench drawings observe format lock install uninstall dist deb clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(RUN) ## watch rotator at work; FOR=60 ends it after 60 seconds
	@$(BIN)/rotator demo $(if $(FOR),--for $(FOR))

test: $(TEST) ## run the whole suite; ARGS="-k name" narrows it
	@$(BIN)/python -m tests.testbed.kubernetes.build || true
	@$(BIN)/python -m pytest -n auto $(ARGS)

check: $(TEST) ## lint, format, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-cache

drawings: $(TEST) ## draw the dashboards in each state into build/drawings; needs npm, chromium, prometheus
	@$(BIN)/python -m tests.testbed.drawing build/drawings

observe: $(RUN) ## run rotator and a sandbox, watched by Prometheus if that is installed; Ctrl-C ends it
	@$(BIN)/python -m deploy.observe

format: $(TEST) ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TEST) ## measure; ARGS are passed on
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(VENV)-lock/.stamp ## pin and hash the newest versions that requirements/*.in allow
	@cd requirements && for name in build run kubernetes test testbed lock; do \
		echo "locking $$name"; \
		../$(VENV)-lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe \
			--strip-extras --no-header --no-emit-options --no-emit-index-url \
			--no-emit-find-links --no-emit-trusted-host \
			$$(test $$name != kubernetes || echo --constraint run.txt) $$name.in -o $$name.txt || exit 1; \
	done

# PREFIX, DESTDIR and the like reach the scripts from the command line; packaging/places has them all.
install: | python ## put rotator in place, for PYTHON; PREFIX=/usr/local, DESTDIR=
	@PYTHON="$(PYTHON)" packaging/install

uninstall: ## take that away again, but for configuration and tokens
	@packaging/uninstall

dist: | python ## build wheel and source archive, into dist
	@PYTHON="$(PYTHON)" packaging/wheel dist

deb: ## build a Debian package for this release of Debian, into dist
	@packaging/deb dist

clean: ## remove the environment and everything that can be made again
	rm -rf $(VENV) $(VENV)-lock build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "rotator needs Python 3.11 or newer, and \"$(PYTHON)\" is not that: install one and" \
			"name it, e.g. make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "\"$(PYTHON)\" lacks the venv module: install it (Debian, Ubuntu: apt install" \
			"python$(VERSION)-venv) and run make again" >&2; exit 1; }

$(RUN): requirements/run.txt requirements/build.txt pyproject.toml | python
	@echo "Setting up $(VENV) with Python $(VERSION) and the packages of requirements/run.txt (once) ..." >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(INSTALL) -r requirements/build.txt -r requirements/run.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(TEST): $(RUN) requirements/test.txt requirements/testbed.txt
	@echo "Adding the test tools of requirements/test.txt and testbed.txt (once) ..." >&2
	@$(INSTALL) -r requirements/test.txt -r requirements/testbed.txt
	@touch $@

$(VENV)-lock/.stamp: requirements/lock.txt | python
	@$(PYTHON) -m venv --clear $(VENV)-lock
	@$(VENV)-lock/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
		-r requirements/lock.txt
	@touch $@
