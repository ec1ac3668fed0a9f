# Two commands: `make run` and `make test`. `make help` lists the rest.
#
# make run   ONCE=1 | DATA=path|binance|synthetic|auto | VENUE=binance|zerodha | SCALE=n | PORT=n | HOME_DIR=folder | DRILL=drift
# make test  ARGS="tests/storage -k name"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HOME_DIR ?= var

export TP_HOME_DIR := $(HOME_DIR)
# Two dozen processes import the same libraries: compiled once, their starts take half the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test lint types contracts check lock denials report install clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

run: $(STAMP) ## start everything, run one pass of the loop, go on serving (ONCE=1: stop after the pass)
	@exec $(BIN)/trading-platform up \
		$(if $(DATA),--data "$(DATA)") $(if $(filter-out 0,$(ONCE)),--once) $(if $(SCALE),--scale $(SCALE)) \
		$(if $(PORT),--port $(PORT)) $(if $(DRILL),--drill $(DRILL)) $(if $(VENUE),--venue $(VENUE))

test: $(STAMP) ## the whole test suite, on real PostgreSQL and Valkey
	@$(BIN)/pytest $(ARGS)

check: lint types contracts ## lint, types and import contracts

lint: $(STAMP) ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict on trading_platform
	@$(BIN)/mypy

contracts: $(STAMP) ## the import direction between the rooms
	@$(BIN)/lint-imports

denials: $(STAMP) ## write docs/denials.md anew from the codes
	@$(BIN)/python -m trading_platform.execution.denials_page > docs/denials.md

MARKET_DATA ?= ../shared/market_data

report: $(STAMP) ## write docs/learning-report.md anew from real bars (MARKET_DATA=folder)
	@mkdir -p $(HOME_DIR)/report
	@evaluate() { $(BIN)/trading-platform learn evaluate --data $(MARKET_DATA)/$$1 --horizon $$2 --out $(HOME_DIR)/report/$$1.json; }; \
		evaluate binance_1h 12 && evaluate nifty_1m_2021 30 && evaluate nse_daily 10
	@$(BIN)/trading-platform learn report $(HOME_DIR)/report/binance_1h.json $(HOME_DIR)/report/nifty_1m_2021.json \
		$(HOME_DIR)/report/nse_daily.json --out docs/learning-report.md

install: $(STAMP) ## create .venv with the locked dependencies

# The installer is pinned and hashed like everything else; pip takes over where it cannot reach its index.
$(STAMP): requirements.lock requirements-installer.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
		f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}; name another with PYTHON=python3.12")'
	@echo "Creating $(VENV) with the locked dependencies (a minute or two the first time) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-installer.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock: ## resolve pyproject.toml again into requirements.lock (versions and hashes, no index address)
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-strip-extras --no-annotate --no-header --quiet --output-file requirements.lock

clean: ## remove .venv; state in var/ is left alone
	@rm -rf $(VENV)
