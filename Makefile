# ViWorkS: the commands of the house. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
WASM := --release --target wasm32-wasip2

.PHONY: help tools build guests debug lint unit e2e interop crash test demo bench deny

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

tools: ## install what building and testing need (Debian; as root)
	deploy/install-tools.sh

build: ## the release programs, in target/release/
	cargo build --release --workspace --bins

guests: ## the plugins and the hostile guests of the tests, as WebAssembly
	cd plugins && cargo build --locked $(WASM)
	cd tests/guests && cargo build --locked $(WASM)

lint: ## formatting and lints, as CI wants them
	cargo fmt --all --check
	cd plugins && cargo fmt --all --check
	cd tests/guests && cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd plugins && cargo clippy --locked $(WASM) -- -D warnings

# One form of build for everything, so that no dependency is built twice.
debug: guests
	cargo build --locked --workspace --all-targets

unit: debug ## unit and component tests, without the end-to-end ones
	cargo nextest run --locked --workspace --all-targets -E 'not package(viworks-tests)'

e2e: debug ## end-to-end tests: real programs, real services
	cargo nextest run --locked --workspace --all-targets -E 'package(viworks-tests)'

interop: debug ## bundles against python securesystemslib, in-toto and openssl
	tests/interop/run.sh

# A debug build: release builds have no points to be killed at.
crash: debug ## kill a gateway KILLS times (500) and check what is left
	target/debug/viworks-crash --kills $(or $(KILLS),500)

test: tools lint debug ## everything, installing what it needs
	cargo nextest run --locked --workspace --all-targets
	$(MAKE) interop
	$(MAKE) crash

demo: tools guests ## a backend, a gateway and the six classic verbs, in target/demo/
	cargo build --locked --release --workspace --bins
	deploy/demo/run.sh

bench: tools guests ## every figure as a ratio within one run; writes target/bench.json
	cargo build --locked --release --workspace --bins
	target/release/viworks-bench

deny: ## licences, advisories, duplicate TLS stacks (needs cargo-deny)
	cargo deny check
