# Targets for people and for CI. `make help` lists them.

SHELL := bash
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
.DEFAULT_GOAL := help
.PHONY: help build demo test test-unit test-e2e test-model test-vm soak bench lint format audit build-sandbox

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## build the program (target/debug/forge)
	scripts/setup.sh build
	cargo build --locked --bin forge

demo: ## build, then let a scripted model fix a small project: no key, no network
	@scripts/setup.sh demo
	cargo build --locked --bin forge
	$(TARGET_DIR)/debug/forge demo

test: ## set the machine up, then formatting, lints and every test
	@scripts/test.sh all

test-unit: ## tests inside the crates' sources only
	@scripts/test.sh unit

test-e2e: ## tests that drive the built program only
	@scripts/test.sh e2e

test-model: ## a real small model, served on this machine: the model contract, one run, and 200 turns of a conversation
	@scripts/test-model.sh

test-vm: ## the sandbox on other kernels and settings, in virtual machines
	@scripts/test-vm.sh

soak: ## random and kill tests with their full counts (long)
	@scripts/test.sh soak

bench: ## time, memory and bytes beside those of other programs
	@scripts/bench/run.sh

lint: ## clippy with warnings as errors, and the rules of the tree
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run --quiet --locked -p xtask -- tidy

format: ## format all sources
	cargo fmt --all

audit: ## licences, sources and bans of all dependencies
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

build-sandbox: ## build the program, the sandbox is part of it, and check that this machine can hold one
	scripts/setup.sh build
	cargo build --locked --bin forge
	@found="$$($(TARGET_DIR)/debug/forge doctor | grep 'sandbox:')"; echo "$$found"; ! grep -q '^FAIL' <<<"$$found"
