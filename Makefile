# Every target says what it does in `make help`, may be run again, and needs Rust, make and a C
# compiler. What else is needed comes from Debian or Ubuntu packages, installed as root or through sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build demo test test-deps lint lint-deps bench bench-growth bench-polls bench-heat bench-gateway bench-vm fuzz figures static-target agent-static server-static packages relay-image test-images clean-room clean

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TERM_COLOR ?= auto

# The tool that checks what may be in the dependency tree, built from source once.
DENY_VERSION := 0.20.2
DENY := $(CARGO_TARGET_DIR)/tools/bin/cargo-deny

# The agent of VM images: this machine's processor, no system library.
STATIC_TARGET := $(shell uname -m)-unknown-linux-musl

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## Build both programs into target/release
	@command -v cargo >/dev/null || { echo "make: cargo is not installed: see https://www.rust-lang.org/tools/install" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "make: there is no C compiler: apt-get install gcc" >&2; exit 1; }
	cargo build --release --bins

demo: build ## Show a container started from user data, its signal, and what wait says
	@examples/demo.sh $(CARGO_TARGET_DIR)/release

test: test-deps ## Run every test: unit, integration, end to end, and the fuzz targets for a minute each
	@tests/setup/run-tests

test-deps: ## Install the packages that the tests need; starts and stops no service
	@tests/setup/packages test
	@tests/setup/packages heat
	@tests/setup/packages glance

lint: lint-deps ## Check format, clippy, documentation, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet
	$(DENY) --log-level error check bans licenses sources

lint-deps: $(DENY)

# A cargo-deny that is on the path already serves as well.
$(DENY):
	@mkdir -p $(@D)
	@if command -v cargo-deny >/dev/null; then \
	    ln -s "$$(command -v cargo-deny)" $@; \
	else \
	    echo "lint: building cargo-deny $(DENY_VERSION); this takes some minutes, once"; \
	    cargo install cargo-deny --version $(DENY_VERSION) --locked --quiet --root $(CARGO_TARGET_DIR)/tools; \
	fi

bench: ## Print how many durable signals per second the relay takes, beside a bare handler, and on etcd
	cargo bench --package heliograph-server --bench put
	@tests/setup/packages test
	cargo bench --package heliograph-server --bench etcd

bench-growth: ## Print what up to a million handles cost the relay, on both stores
	cargo bench --package heliograph-server --bench growth
	@tests/setup/packages test
	GROWTH_BENCH_STORE=etcd cargo bench --package heliograph-server --bench growth

# The relay is built behind the benchmark, whose libraries have what tests need: it is measured as it is shipped.
bench-polls: ## Print what 100,000 long-polls cost the relay, in a virtual machine where a process may not have the files
	@tests/setup/packages test
	@benchmark=$$(cargo bench --package heliograph-server --bench polls --no-run --message-format json-render-diagnostics \
	    | sed -n 's/.*"executable":"\([^"]*\/polls-[^"]*\)".*/\1/p'); \
	cargo build --release --package heliograph-server; \
	tests/vm/polls "$$benchmark" $(CARGO_TARGET_DIR)/release/heliograph-server $(CARGO_TARGET_DIR)/vm

bench-heat: build ## Print what Heat's polls cost the relay, beside a real Swift
	tests/heat/bench $(CARGO_TARGET_DIR)/release/heliograph-server

bench-gateway: ## Print what the metadata gateway adds to the time of a request, at 500 requests/s
	cargo build --release --bin heliograph-server --bin gateway_latency
	$(CARGO_TARGET_DIR)/release/gateway_latency $(CARGO_TARGET_DIR)/release/heliograph-server

bench-vm: agent-static ## Print what the agent costs in a virtual machine, beside cloud-init's runcmd; some ten minutes
	@tests/setup/packages test
	cargo build --release --bin heliograph-server --bin vm_overhead
	@tests/setup/as-root cargo run --release --quiet --package e2e --bin vm_overhead -- \
	    $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent $(BOOTS)

fuzz: test-deps ## Look for inputs that break the parsers, a minute each
	tests/fuzz/run $(or $(SECONDS_EACH),60)

figures: build agent-static ## Print sizes and resident memory of both programs
	@tests/setup/packages test
	@tests/setup/as-root cargo run --release --quiet --package e2e --bin figures -- \
	    $(CARGO_TARGET_DIR)/release/heliograph-server $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent

static-target: ## Add what static programs are built with
	@tests/setup/packages agent-static
	@if [ ! -d "$$(rustc --print target-libdir --target $(STATIC_TARGET))" ]; then \
	    command -v rustup >/dev/null || { echo "static-target: the Rust target $(STATIC_TARGET) is missing, and there is no rustup to add it" >&2; exit 1; }; \
	    rustup target add $(STATIC_TARGET); \
	fi

agent-static: static-target ## Build the agent as one static file for VM images, and print its size
	CC_$(subst -,_,$(STATIC_TARGET))=musl-gcc cargo build --profile small --target $(STATIC_TARGET) --package heliograph-agent
	@echo "$(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent: $$(stat --format %s $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent | numfmt --to iec-i --suffix B)"

server-static: static-target ## Build the relay as one static file
	CC_$(subst -,_,$(STATIC_TARGET))=musl-gcc cargo build --release --target $(STATIC_TARGET) --package heliograph-server

packages: agent-static ## Make .deb and .rpm of both programs in target/packages
	@tests/setup/packages packages
	cargo build --release --package heliograph-server
	images/packages/build $(CARGO_TARGET_DIR)/packages $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent $(CARGO_TARGET_DIR)/release/heliograph-server
	@find $(CARGO_TARGET_DIR)/packages -name '*.deb' -o -name '*.rpm'

relay-image: server-static ## Make the relay's container image, heliograph-server, with this machine's engine
	images/relay/build $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/release/heliograph-server $(or $(NAME),heliograph-server)

test-images: agent-static ## Build an image with the diskimage-builder element, boot it, and say where the time went
	@tests/setup/packages test-images
	tests/vm/element $(CARGO_TARGET_DIR)/$(STATIC_TARGET)/small/heliograph-agent $(CARGO_TARGET_DIR)/image

clean-room: ## Try `make demo` and `make test` in a fresh Debian tree that has nothing but Rust
	tests/setup/clean-room

clean: ## Remove what was built
	cargo clean
