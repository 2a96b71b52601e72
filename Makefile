# Everything that is built, checked or measured here. `make help` lists it.
# All tools and downloads land in .bin/, which git ignores.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
BIN         := .bin

FUZZTIME ?= 10s#   how long each fuzz target runs
SEEDS    ?= 500#   how many seeds the simulation runs
SEED     ?= 1#     the simulation's first seed
RACE     ?= #     -race makes test and e2e look for data races; needs a C compiler
BENCH    ?= .#     which Go benchmarks run
BENCHTIME ?= 1s#  how long each of them runs, or how often: 1x
PKG      ?= ./...# packages of lint, test and bench
TARGET   ?= tierlog# whom interop drives: tierlog, kafka, or the HOST:PORT of a broker

# End-to-end tests have a target of their own: they build and kill the real binary.
UNIT = $$(go list $(PKG) | grep -v -e /test/e2e)

GOTESTSUM = $(BIN)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --

.PHONY: help build test lint fuzz sim bench e2e interop compare deps clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "settings, given as NAME=VALUE:"
	@awk '/^[A-Z]+ +\?= / {split($$0, part, "#"); name = $$1; value = part[1]; sub(/^[A-Z]+ +\?= */, "", value); sub(/^ */, "", part[2]); printf "  %-10s %s (default %s)\n", name, part[2], value}' $(MAKEFILE_LIST)

build: ## build ./tierlog
	CGO_ENABLED=0 go build -trimpath -o tierlog ./cmd/tierlog

test: $(BIN)/gotestsum ## unit, conformance and simulation tests; builds MinIO into .bin first
	tools/minio.sh >/dev/null
	$(GOTESTSUM) $(RACE) -timeout 20m $(UNIT)

lint: $(BIN)/golangci-lint ## golangci-lint, gofumpt and goimports included, and go vet
	go vet $(PKG)
	$(BIN)/golangci-lint run $(PKG)

fuzz: ## every fuzz target for FUZZTIME each
	tools/fuzz.sh $(FUZZTIME)

sim: ## the seeded simulation, SEEDS seeds from SEED on
	SIM_SEED=$(SEED) SIM_SEEDS=$(SEEDS) go test -count=1 -timeout 2h ./test/sim

bench: ## Go benchmarks of the hot paths, with allocations
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem $(PKG)

compare: ## side by side with Apache Kafka on this machine; about an hour; see bench/compare
	go run ./bench/compare

e2e: $(BIN)/gotestsum ## the real binary, killed and restarted, on a directory and on MinIO
	tools/minio.sh >/dev/null
	$(GOTESTSUM) $(RACE) -count=1 -timeout 20m ./test/e2e/...

interop: ## clients that nobody here wrote, against TARGET
	test/interop/install.sh
	go run ./test/interop -target $(TARGET)

deps: $(BIN)/gotestsum $(BIN)/golangci-lint ## fetch and build every tool that the other targets use
	tools/minio.sh >/dev/null
	test/interop/install.sh

clean: ## remove what was built; .bin/ with its downloads stays
	rm -rf tierlog tierlog-data
	go clean -testcache

$(BIN)/gotestsum: tools/go.mod
	go build -C tools -o ../$(BIN)/gotestsum gotest.tools/gotestsum

$(BIN)/golangci-lint: tools/go.mod
	go build -C tools -o ../$(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
