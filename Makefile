# make alone lists the targets.

GO          ?= go
BIN         := bin
OUT         ?= out/report
EXPERIMENT  ?= all
FUZZTIME    ?= 10s
BENCH       ?= .
NAT         ?= a=port-restricted,b=port-restricted
TESTFLAGS   ?=
PKGS        ?= ./...
PLATFORMS   := linux/amd64 linux/arm64 darwin/arm64 windows/amd64

LINT_VERSION := v2.15.0
LINT_MODULE  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
LINT_DIR     ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fnwire/golangci-lint-$(LINT_VERSION)

VERSITYGW_VERSION := v1.8.0
VERSITYGW_DIR     := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fnwire/versitygw-$(VERSITYGW_VERSION)

# The commit goes into the binaries (--version) where there is one to ask for.
VCS := $(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo true || echo false)

.DEFAULT_GOAL := help
PEERS := $(patsubst experiments/peer/%/go.mod,%,$(wildcard experiments/peer/*/go.mod))
.PHONY: help build peers lambda demo test race lint fmt vet cross fuzz bench lab report cover clean lint-tool versitygw

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile the commands into ./bin
	@mkdir -p $(BIN)
	$(GO) build -trimpath -buildvcs=$(VCS) -o $(BIN)/ ./cmd/...

peers: ## build and test the peers of the experiments that are modules of their own, into ./bin
	@mkdir -p $(BIN)
	@set -e; for p in $(PEERS); do echo "peer $$p"; \
	  (cd experiments/peer/$$p && $(GO) build -trimpath -buildvcs=false -o ../../../$(BIN)/peer-$$p . && $(GO) vet -trimpath . && $(GO) test -trimpath .); \
	done

lambda: ## build the example for AWS Lambda, for both of its architectures, into ./bin/lambda
	@set -e; for a in amd64:x86_64 arm64:arm64; do \
	  echo "lambda $${a#*:}"; CGO_ENABLED=0 GOOS=linux GOARCH=$${a%:*} $(GO) build -trimpath -buildvcs=$(VCS) -tags lambda.norpc \
	    -ldflags '-s -w' -o $(BIN)/lambda/$${a#*:}/bootstrap ./fnlib/examples/lambda; \
	done

demo: build ## two functions behind two NATs hand over real state; prints one table
	$(BIN)/experiments demo

test: ## run all tests (TESTFLAGS=-short for a quick run, PKGS=./relay/... for a part)
	$(GO) test $(TESTFLAGS) $(PKGS)

race: ## run all tests under the race detector (needs a C compiler)
	$(GO) test -race $(TESTFLAGS) $(PKGS)

lint: fmt vet lint-tool ## gofmt, go vet and golangci-lint (compiled on first use: minutes)
	@tool=golangci-lint; test -x "$(LINT_DIR)/golangci-lint" && tool="$(LINT_DIR)/golangci-lint"; \
	"$$tool" run $(PKGS)

fmt:
	@bad=$$(find . -name '*.go' -not -path './$(BIN)/*' -exec gofmt -l {} +) || exit 1; \
	if [ -n "$$bad" ]; then echo "not formatted, run gofmt -w on:"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet $(PKGS)

# A golangci-lint of the right version on PATH will do; otherwise one is compiled into the cache.
lint-tool:
	@want=$(LINT_VERSION:v%=%); \
	if [ -x "$(LINT_DIR)/golangci-lint" ]; then exit 0; fi; \
	if golangci-lint version 2>/dev/null | grep -qwF "$$want"; then exit 0; fi; \
	echo "compiling golangci-lint $(LINT_VERSION) into $(LINT_DIR)"; \
	GOBIN="$(LINT_DIR)" GOFLAGS= $(GO) install $(LINT_MODULE)@$(LINT_VERSION)

versitygw: ## compile the S3 server that tests and experiments start (first use: minutes)
	@if [ -x "$(VERSITYGW_DIR)/versitygw" ]; then exit 0; fi; \
	echo "compiling versitygw $(VERSITYGW_VERSION) into $(VERSITYGW_DIR)"; \
	GOBIN="$(VERSITYGW_DIR)" GOFLAGS= $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

cross: ## compile for every other system that functions run on: all commands, and vet what a function links
	@set -e; export CGO_ENABLED=0; own=$$($(GO) env GOOS)/$$($(GO) env GOARCH); for p in $(PLATFORMS); do \
	  if [ $$p = $$own ]; then continue; fi; \
	  echo "$$p"; export GOOS=$${p%/*} GOARCH=$${p#*/}; \
	  $(GO) build -trimpath ./fnlib/... ./cmd/...; \
	  $(GO) vet ./fnlib/... ./transport/... ./relay ./rendezvous ./internal/... ./cmd/fnwire; \
	done

fuzz: ## run every fuzz target for FUZZTIME (default 10s) each
	@set -e; grep -r --include='*_test.go' '^func Fuzz' . | \
	sed -E 's|^(.*)/[^/]*:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | sort -u | while read -r dir name; do \
	  echo "== $$dir $$name"; $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$dir" </dev/null; \
	done

bench: ## run the Go benchmarks (BENCH=regexp, PKGS=./transport)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKGS)

lab: build ## raise a lab of namespaces and NATs for your own programs (NAT=a=KIND,b=KIND)
	$(BIN)/experiments lab up --nat $(NAT)

report: build ## all experiments, quickly, with their report: 10 minutes at most (EXPERIMENT=all, OUT=out/report)
	@$(BIN)/experiments run $(EXPERIMENT) --quick --out $(OUT); status=$$?; $(BIN)/experiments report $(OUT) && exit $$status

cover: ## test coverage over all packages, as text and cover.html
	$(GO) test -short -coverpkg=./... -coverprofile=cover.out $(PKGS)
	$(GO) tool cover -html=cover.out -o cover.html
	$(GO) tool cover -func=cover.out | tail -1

clean: ## remove what the other targets made
	rm -rf $(BIN) out cover.out cover.html
