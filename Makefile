SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help
.PHONY: help build demo run test e2e bench scale chaos hosts containers soak model screenshots lint fmt tidy setup module-path release dist clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/fleetcall, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/fleetcall ./cmd/fleetcall

demo: build ## 1,000 requests at once with coalescing off, local and distributed; needs only Go
	./bin/fleetcall demo

run: build ## run a fleet on LISTEN_ADDR (:8000) until Ctrl-C
	./bin/fleetcall fleet

# Tests wait for half of their time: one package more than there are cores is tested at a
# time, and one end-to-end test more. Those go last, because a thousand requests need all
# cores. A debugger's tables are half of a linker's work, and make lint vets.
BESIDE := $$(($$(getconf _NPROCESSORS_ONLN) + 1))
FASTER := -ldflags=-w -vet=off
# These begin first: the longest of all would be left to run alone at the end.
LONGEST := ./internal/publish ./coalesce/tests/distributed ./cmd/fleetcall ./docs ./internal/proof/chaos
test: setup ## all tests with the race detector, on private servers
	$(GO) test -race -p $(BESIDE) $(FASTER) -timeout 60m $(LONGEST) $$($(GO) list work | grep -v -e '/e2e$$' -e '/bench$$' -e '/deploy/verify$$' -e '/deploy/debian$$')
	$(GO) test $(FASTER) ./bench ./deploy/verify ./deploy/debian
	$(GO) test -race -parallel $(BESIDE) $(FASTER) -timeout 30m ./e2e

e2e: setup ## the end-to-end tests alone
	$(GO) test -race -parallel $(BESIDE) -timeout 30m -v ./e2e

bench: build setup ## measure fleetcall beside its peers, and write docs/benchmarks.md
	$(GO) run ./bench -binary bin/fleetcall -docs docs

REPLICAS ?= 200

scale: setup ## measure large fleets, and write their part of docs/benchmarks.md (REPLICAS=200)
	$(GO) run ./bench -only scale -replicas $(REPLICAS) -docs docs

TIME ?= 3m
SEED ?= 0

chaos: setup ## break all that a fleet depends on, check every promise (TIME=10m SEED=42)
	$(GO) run ./internal/proof/chaos/run -time $(TIME) -seed $(SEED)

hosts: ## replicas in network namespaces that lose each other, every promise checked; needs root
	FLEETCALL_HOSTS=all $(GO) test -count=1 -v -run AmongHosts ./internal/proof/chaos

# Not a part of make test: the first time, it builds images and the compose tool for minutes.
containers: ## run the compose files on this machine's container engine, and test what they make
	./scripts/containers

soak: ## three replicas in containers for long, a fault a minute; fails if something leaks (TIME=30m)
	FLEETCALL_SOAK=$(TIME) ./scripts/containers -run Soak -timeout 0

model: setup ## check the protocol's model with spin
	$(GO) test -count=1 -v ./docs

screenshots: build setup ## take the pictures of docs/screenshots with a real Chromium
	$(GO) run ./docs/screenshots

lint: ## formatting, vet, staticcheck, and whether each go.mod is tidy
	@files=$$(gofmt -l $$(find . -name '*.go')); if [ -n "$$files" ]; then echo "not formatted (make fmt):"; echo "$$files"; exit 1; fi
	$(GO) vet work
	$(GO) run $(STATICCHECK) $$($(GO) list work)
	./scripts/tidy -check

fmt: ## format the source
	gofmt -w $$(find . -name '*.go')

tidy: ## add to each go.mod what is missing, and drop what is unused
	./scripts/tidy

setup: ## install redis-server, postgresql, nginx, haproxy, prometheus, chromium, FastAPI, spin and gcc where missing
	@./scripts/setup

module-path: ## give the modules another path, wherever it stands (MODULE=example.com/team/fleetcall)
	@$(GO) run ./internal/publish/run module-path '$(MODULE)'

release: ## commit, tag and build a version, pushing nothing (VERSION=v0.2.0)
	@$(GO) run ./internal/publish/run release --platforms '$(PLATFORMS)' '$(VERSION)'

dist: ## build the binaries of a tagged version anew (VERSION=v0.2.0)
	@$(GO) run ./internal/publish/run dist --platforms '$(PLATFORMS)' '$(VERSION)'

clean: ## remove what was built
	rm -rf bin dist
