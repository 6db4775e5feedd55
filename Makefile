# ViWorkS: the commands of the house. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
WASM := --release --target wasm32-wasip2
# Whole workspace, so that no dependency is built twice; each program that is linked costs a minute.
SHIPPED := --locked --release --workspace --bin viworks-backend --bin viworks-gateway --bin viworks --bin viworks-sign

.PHONY: help tools build guests debug lint unit e2e interop attack fuzz crash test test-full demo bench deny
.PHONY: sbom deb docker

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

tools: ## install what building and testing need (Debian; as root)
	deploy/install-tools.sh

build: ## the release programs, in target/release/
	cargo build $(SHIPPED)

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

interop: debug ## bundles and repositories against python's tools, openssl and tough
	tests/interop/run.sh

# A debug build: release builds have no points to be killed at.
crash: debug ## kill a gateway KILLS times (500) and check what is left
	target/debug/viworks-crash --kills $(or $(KILLS),500)

attack: debug ## every attack that must be refused, a line each
	target/debug/viworks-attack

# Without sanitizers, so that the stable toolchain builds it.
fuzz: ## read what comes from outside with anything, SECONDS (30) a target (installs cargo-fuzz)
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	for target in envelope json metadata manifest frames proxy; do \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run -s none $$target -- -max_total_time=$(or $(SECONDS),30) -max_len=65536; \
	done

# What needs long, in a module `full`, is test-full's.
test: tools lint debug ## everything but what needs minutes, installing what it needs
	cargo nextest run --locked --workspace --all-targets -E 'not test(/^full::/)'
	$(MAKE) interop
	$(MAKE) crash

test-full: tools debug ## what needs minutes: load, recovery, endurance
	cargo nextest run --locked --workspace --all-targets --no-tests pass -E 'test(/^full::/)'

demo: tools guests ## a backend, a gateway and the six classic verbs, in target/demo/
	cargo build $(SHIPPED)
	deploy/demo/run.sh

bench: tools guests ## every figure as a ratio within one run; writes target/bench.json
	cargo build $(SHIPPED) --bin viworks-bench --bin viworks-fleet
	target/release/viworks-bench

sbom: ## what each program is made of, CycloneDX, in target/sbom/
	mkdir -p target/sbom
	deploy/packaging/sbom.py viworks-backend viworks-backend >target/sbom/viworks-backend.cdx.json
	deploy/packaging/sbom.py viworks-gateway viworks-gateway >target/sbom/viworks-gateway.cdx.json
	deploy/packaging/sbom.py viworks viworks >target/sbom/viworks.cdx.json
	deploy/packaging/sbom.py viworks-signing viworks-sign >target/sbom/viworks-sign.cdx.json

deb: build sbom ## Debian packages of backend, gateway and command line, in target/debian/
	cargo deb --no-build -p viworks-backend
	cargo deb --no-build -p viworks-gateway
	cargo deb --no-build -p viworks

docker: build ## images of backend and gateway FROM scratch, with the engine that DOCKER_HOST names
	for part in backend gateway; do \
	  deploy/docker/collect.sh target/release/viworks-$$part deploy/docker/rootfs/viworks-$$part; \
	  docker build -t viworks-$$part -f deploy/docker/$$part.Dockerfile deploy/docker; \
	done

deny: ## licences, advisories, duplicate TLS stacks (needs cargo-deny)
	cargo deny check
