# `make` runs psp; `make help` lists the rest.

.DEFAULT_GOAL := run
.PHONY: chaos run test test-infra lint lint-deploy deny bench doc help tools sqlx up down logs

NEXTEST_VERSION := 0.9.143
DENY_VERSION := 0.20.2
# Starts one Postgres and one SQS for a command, in containers where a Docker engine answers.
WITH_SERVERS := target/debug/with-servers

run: ## Build psp and run everything on http://127.0.0.1:3000 (database: psp.db)
	cargo run --release

test: tools lint ## Check format and lints, run all tests, those of the infrastructure where Terraform is installed
	cargo build --workspace --all-targets
	scripts/test.sh $(NEXTEST_FLAGS)

test-infra: tools ## Run the tests of the infrastructure: plans, and a whole apply to an emulator of AWS
	infrastructure/test.sh

lint: ## Check format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p psp-cli --test deployed -- -D warnings

lint-deploy: ## Check the image, the containers, the workflows and the shell scripts; no Docker needed
	scripts/lint-deploy.sh

sqlx: ## Record what the macros must know of Postgres (after a change of a query or a migration)
	cargo build -p psp-testkit --bin with-servers
	rm -rf crates/psp-postgres/.sqlx && mkdir crates/psp-postgres/.sqlx && touch crates/psp-postgres/src/lib.rs
	SQLX_OFFLINE_DIR=$(CURDIR)/crates/psp-postgres/.sqlx $(WITH_SERVERS) --schema migrations/postgres cargo check -p psp-postgres

deny: ## Check licences, sources and banned crates
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --version $(DENY_VERSION)
	cargo deny check bans licenses sources

chaos: tools ## Kill, cut and fail for minutes: 5,000 payments, and 5,000 over failing gateways; PSP_CHAOS_SEED repeats a run
	cargo build -p psp-cli -p psp-testkit --bins
	PSP_CHAOS_PAYMENTS=$${PSP_CHAOS_PAYMENTS:-5000} $(WITH_SERVERS) cargo test -p psp-cli --no-fail-fast --test chaos --test chaos_gateways -- --nocapture

bench: tools ## Print the benchmark tables (docs/benchmarks.md): routing and gateways, the product on SQLite, on Postgres and SQS, webhooks
	cargo build --release -p psp-cli -p psp-bench
	cargo build -p psp-testkit --bin with-servers
	target/release/psp-bench gateways $(BENCH_FLAGS)
	target/release/psp-bench sqlite $(BENCH_FLAGS)
	$(WITH_SERVERS) --durable target/release/psp-bench postgres $(BENCH_FLAGS)
	$(WITH_SERVERS) --durable target/release/psp-bench webhooks $(BENCH_FLAGS)

up: .env ## Build the image and run every role in containers, with Postgres and LocalStack
	PSP_COMMIT=$$(git rev-parse HEAD 2>/dev/null || echo unknown) docker compose up --build --detach --wait
	@echo "http://$$(docker compose port api 3000)/docs"

# The secrets of the containers on this machine. The data in their volume needs them: made once.
.env:
	@umask 077 && keys=$$(openssl rand -base64 32) && password=$$(openssl rand -hex 24) && \
		printf 'PSP_CARD_KEYS=%s\nPSP_DATABASE_PASSWORD=%s\n' "$$keys" "$$password" >$@

down: ## Stop the containers; DOWN_FLAGS=--volumes deletes their data, too
	docker compose down $(DOWN_FLAGS)

logs: ## Follow the logs of the containers
	docker compose logs --follow

doc: ## Build the documentation of the library
	cargo doc --no-deps --workspace --open

tools: ## Install the test runner, the tests' servers and receivers where they are missing
	@command -v cargo-nextest >/dev/null || cargo install cargo-nextest --locked --version $(NEXTEST_VERSION)
	@crates/psp-testkit/install-servers.sh
	@crates/psp-webhooks/install-receivers.sh

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14
