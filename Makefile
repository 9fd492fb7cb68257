# What there is to do, one word each. All of it needs nothing but make and python3 >= 3.11.

.PHONY: help setup servers demo test check lint format types imports bench lock clean
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
SERVERS := .venv/.servers

help:
	@echo 'make setup    install everything into .venv (the others do it by themselves)'
	@echo 'make servers  install the LDAP servers that the tests run (the tests do it by themselves)'
	@echo 'make demo     a whole organisation on a real homeserver; ARGS=--keep leaves it running'
	@echo 'make test     all tests; ARGS="-k guards" for some'
	@echo 'make check    linters, formatting, types, import rules'
	@echo 'make bench    how fast it is: core, LDAP, mirror, SCIM, the live daemon'
	@echo 'make lock     pin the requirements anew; ARGS=--upgrade for newer versions'
	@echo 'make clean    remove .venv and what builds and tests left'

setup: $(READY)

$(READY): requirements/dev.txt pyproject.toml tools/setup.sh
	@PYTHON='$(PYTHON)' sh tools/setup.sh
	@touch $@

servers: $(SERVERS)

$(SERVERS): tools/servers.sh | $(READY)
	@sh tools/servers.sh
	@touch $@

demo: $(READY)
	@$(BIN)/aim demo $(ARGS)

# Most tests wait for servers more than they compute. A file stays together: what it starts, it starts once.
WORKERS = --numprocesses=2 --dist=loadfile

test: $(READY) $(SERVERS)
	$(BIN)/pytest $(WORKERS) $(ARGS)

# All four, even if the first fails.
check: $(READY)
	@$(MAKE) --no-print-directory --keep-going lint format types imports

lint: $(READY)
	$(BIN)/ruff check

format: $(READY)
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

bench: $(READY) $(SERVERS)
	@$(BIN)/python -m bench $(ARGS)

lock: $(READY)
	@sh tools/lock.sh $(ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
