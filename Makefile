# Keyward's commands. `make` alone lists them.
#
# The work is in scripts/, so that each step can also be run by hand; this file
# says in which order, and under which name.

.DEFAULT_GOAL := help
# The steps of `make test` follow one another, whatever `-j` says.
.NOTPARALLEL:

# What scripts/install-test-tools fetched, for everything that is run from here.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

CARGO ?= cargo
ARGS ?=
BIN = $(abspath $(or $(CARGO_TARGET_DIR),target))/release/keyward

STEP = @printf '\n==> %s  [%s]\n' "$(1)" "$$(date +%H:%M:%S)"

##@ Use

.PHONY: run
run: ## Build the release binary and serve (options: make run ARGS="--port 9000")
	$(CARGO) run --release --locked -- $(ARGS)

.PHONY: build
build: ## Build the release binary, target/release/keyward
	$(call STEP,Release binary)
	$(CARGO) build --release --locked

##@ Test

.PHONY: test
test: ## Everything that must pass before a change lands; installs what it needs
	@$(MAKE) --no-print-directory tools
	@$(MAKE) --no-print-directory fmt-check
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory deny
	@$(MAKE) --no-print-directory docs-lint
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory check-openapi
	@$(MAKE) --no-print-directory check-metrics
	$(call STEP,All of it passed)
	@scripts/run-tests --tally

.PHONY: tools
tools: ## Install what the tests need, where it is missing, into .tools/
	$(call STEP,Test tools)
	@scripts/install-test-tools

.PHONY: test-rust
test-rust: ## Unit tests, the integration tests (tests/it), documentation tests
	$(call STEP,Tests)
	@scripts/run-tests $(ARGS)

.PHONY: check-openapi
check-openapi: ## The OpenAPI document: redocly lints it, schemathesis holds the server to it
	$(call STEP,OpenAPI document and server)
	@KEYWARD_BIN="$${KEYWARD_BIN:-$(BIN)}" scripts/check-openapi

.PHONY: check-metrics
check-metrics: ## The metrics of a running server, read by promtool
	$(call STEP,Metrics)
	@KEYWARD_BIN="$${KEYWARD_BIN:-$(BIN)}" scripts/check-metrics

.PHONY: bench
bench: ## What the parts cost, then the whole under wrk (make bench ARGS=--quick, or ARGS=verify)
	$(CARGO) bench --locked --bench parts $(if $(ARGS),-- $(ARGS))
	$(CARGO) bench --locked --bench whole $(if $(ARGS),-- $(ARGS))

##@ Code

.PHONY: fmt
fmt: ## Format the Rust code
	$(CARGO) fmt

.PHONY: fmt-check
fmt-check: ## Is the Rust code formatted?
	$(call STEP,Formatting)
	$(CARGO) fmt --check

.PHONY: lint
lint: ## Clippy over every target; a warning is an error
	$(call STEP,Clippy)
	$(CARGO) clippy --all-targets --locked -- -D warnings

.PHONY: deny
deny: ## Dependencies: banned crates, licences, sources (deny.toml)
	$(call STEP,Dependencies: bans and licences and sources)
	$(CARGO) deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: audit
audit: ## Dependencies: known vulnerabilities (fetches the advisory database)
	$(call STEP,Dependencies: advisories)
	$(CARGO) deny --locked check advisories

.PHONY: docs-lint
docs-lint: ## Do the links between the documents hold?
	$(call STEP,Documents)
	@scripts/check-docs

.PHONY: docs
docs: ## Build the code's documentation (target/doc)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --document-private-items

.PHONY: shell-lint
shell-lint: ## shellcheck over the scripts (needs shellcheck)
	$(call STEP,Shell scripts)
	shellcheck --external-sources --source-path=SCRIPTDIR .ci/run scripts/lib.sh scripts/install-test-tools scripts/run-tests scripts/check-openapi scripts/check-metrics

.PHONY: clean
clean: ## Remove build output and the installed test tools
	$(CARGO) clean
	rm -rf .tools

.PHONY: help
help: ## List the commands
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
