# Two commands do everything on a bare Debian machine: `make demo` and `make test`. `make` alone lists the rest.
# Each target installs what it lacks, exits non-zero where something does not hold, and prints its figures last.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Outside of the checkout, so that a fresh clone does not build everything again.
export TIDEGATE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tidegate
export CARGO_TARGET_DIR ?= $(TIDEGATE_CACHE)/target
# RocksDB is compiled once, into a library that every build links: scripts/rocksdb.
export ROCKSDB_LIB_DIR ?= $(TIDEGATE_CACHE)/rocksdb
export ROCKSDB_STATIC ?= 1
export PATH := $(PATH):$(HOME)/.cargo/bin

# $(call options,A B): --a VALUE --b VALUE for those variables that are set.
lower = $(shell printf %s '$(1)' | tr A-Z a-z)
options = $(foreach name,$(1),$(if $($(name)),--$(call lower,$(name)) '$($(name))'))

# Always the whole workspace: a selection of packages has other features, and would build the dependencies again.
build = cargo build --locked --workspace --bin $(1)
run = $(CARGO_TARGET_DIR)/debug/$(1)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing: Debian packages, Rust
	scripts/setup

.PHONY: demo
demo: setup-build ## replay a month of flights on the embedded log and print the results; DIR keeps the log and goes on after a kill
	$(call build,tidegate)
	$(call run,tidegate) demo $(call options,DIR)

.PHONY: demo-kafka
demo-kafka: containers ## the same on Kafka in a container
	$(call build,tidegate)
	scripts/with-kafka $(call run,tidegate) demo --kafka

.PHONY: test
test: setup-containers ## everything: format, lints, documentation, all tests, with real Kafka and an S3 server in containers
	scripts/test

.PHONY: parity
parity: containers ## the same cases on the embedded log and on Kafka in a container
	cargo test --locked --workspace --test integration -- contract::

.PHONY: simulate
simulate: setup-build ## the engine while everything goes wrong that a seed decides; SEEDS FROM JOBS STRATEGY SAVEPOINTS=1 CHANGE=1
	$(call build,simulate)
	$(call run,simulate) $(call options,SEEDS FROM JOBS STRATEGY) $(if $(SAVEPOINTS),--savepoints) $(if $(CHANGE),--change)

.PHONY: invariance
invariance: setup-build ## the same output and state under all strategies, intervals and numbers of workers and instances
	cargo test --locked --workspace --test embedded -- --nocapture invariance

.PHONY: damage
damage: setup-build ## each object of a snapshot repository damaged in each way: recovery is exact, or loud
	cargo test --locked --workspace --lib -- --nocapture damage_to_any_single_object

.PHONY: planted
planted: setup-build ## bugs on purpose, and how many seeds it takes to find each; SEEDS FROM BUG
	$(call build,simulate) --features tidegate-integration-tests/planted
	$(call run,simulate) --planted --seeds $(or $(SEEDS),10000) $(call options,FROM BUG)

.PHONY: models
models: setup-build ## the protocols in every order of steps, and a counterexample for each rule that is left out
	cargo test --locked --workspace --test commit_model --test restore_model --test snapshots_model -- --nocapture

.PHONY: flights-check
flights-check: containers ## a year of flights against an independent evaluator; STRATEGY DATA COMMIT WORKERS PARTITIONS GRACE OUT
	$(call build,flights-check) --bin tidegate
	$(call run,flights-check) $(call options,STRATEGY DATA COMMIT WORKERS PARTITIONS GRACE OUT)

.PHONY: ledger
ledger: containers ## kill -9 under load, every input counted once; STRATEGY KILLS DISK SIGNAL INSTANCES CHANGE FAULT SPILL RATE SECONDS SEED
	$(call build,ledger) --bin tidegate
	$(call run,ledger) $(call options,STRATEGY KILLS DISK SIGNAL INSTANCES CHANGE FAULT SPILL RATE SECONDS SEED BOOTSTRAP)

.PHONY: savepoints
savepoints: containers ## a savepoint under load, two applications started from it, all ledgers exact; STRATEGY FORMAT RATE SECONDS
	$(call build,savepoints) --bin tidegate
	$(call run,savepoints) $(call options,STRATEGY FORMAT RATE SECONDS BOOTSTRAP)

.PHONY: bench
bench: setup-build ## compare with Kafka Streams on the same broker; writes bench/RESULTS.md; RUNS RECORDS QUICK=1
	bench/run.sh

.PHONY: bench-restore
bench-restore: containers ## restore on an empty disk beside a replay of the changelog; writes bench/RESTORE.md; KEYS RUNS LAZY WORK
	$(call build,bench-restore) --release
	$(CARGO_TARGET_DIR)/release/bench-restore $(if $(KEYS)$(LAZY),,--page bench/RESTORE.md) $(call options,KEYS RUNS LAZY WORK)

.PHONY: bench-barrier
bench-barrier: containers ## base snapshots of a large state under load; writes bench/BARRIER.md; SIZE (GB) ROUNDS INTERVAL LOAD WORK
	$(call build,bench-barrier) --release
	$(CARGO_TARGET_DIR)/release/bench-barrier $(if $(SIZE),,--page bench/BARRIER.md) $(call options,SIZE ROUNDS INTERVAL LOAD WORK)

.PHONY: profile
profile: setup-build ## where the CPU time of a count goes; writes bench/PROFILE.md
	bench/profile.sh

.PHONY: doc
doc: setup-build ## the documentation of the library
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p tidegate
	@echo "$(CARGO_TARGET_DIR)/doc/tidegate/index.html"

.PHONY: image
image: containers ## images of the service and of Prometheus for docker/compose.yaml
	docker/service-image
	docker/prometheus-image

.PHONY: clean-containers
clean-containers: ## remove containers that killed runs left behind
	docker/clean-containers

.PHONY: setup-build setup-containers containers
setup-build:
	@scripts/setup build
	@scripts/rocksdb
setup-containers:
	@scripts/setup build containers
	@scripts/rocksdb
containers: setup-containers
	@docker/engine-up
	@docker/kafka-image
	@docker/s3-image
