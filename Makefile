# The PostgreSQL to build for: make PG=16 ... By default the newest of 15 to 18 whose server and headers are
# installed. Looked up when used, because `prerequisites` may have to install one first.
PG ?= $(shell tools/pg.sh major)
PG_CONFIG ?= $(shell PG=$(PG) tools/pg.sh config)
WITH_PG = PG=$(PG) PG_CONFIG=$(PG_CONFIG)

# What to test: make test TESTS=row::, make test-clients TESTS=django
TESTS ?=

# What to show: make demo EXAMPLE=agent_platform, workspaces, crm, capital_planning or hybrid
EXAMPLE ?= agent_platform

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop test test-clients soak bench build package install fmt lint clean prerequisites

help: ## This list
	@echo 'pg_tenancy: make TARGET [PG=15|16|17|18]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: package ## A running server with an example application, on this machine: EXAMPLE=agent_platform|workspaces|crm|capital_planning|hybrid
	@$(WITH_PG) EXAMPLE=$(EXAMPLE) tools/demo.sh

demo-stop: ## Stop the demo and remove it
	@tools/demo.sh stop

test: ## Lints and every test, on throwaway servers; TESTS=row:: for some
	@tools/test.sh sessions $(TESTS)

test-clients: ## The clients in examples/clients, installed from their registries; TESTS=django for one
	@tools/test.sh clients $(TESTS)

soak: ## The long test under load, with crashes
	@tools/test.sh soak $(TESTS)

bench: package ## Each figure as a ratio to what a user would otherwise write
	@$(WITH_PG) tools/with-stage.sh cargo run --release -p tenancy-bench

build: package ## The same as package

package: prerequisites ## Library, control file and SQL script, in target/package/pgN
	@$(WITH_PG) tools/package.sh

install: package ## Put the package into this machine's PostgreSQL
	@tools/install.sh target/package/pg$(PG)

fmt: ## Format the code
	@cargo fmt --all

lint: prerequisites ## Formatting, lints, and the checks of dependencies
	@$(WITH_PG) tools/lint.sh

prerequisites: ## Install what building and testing need and this machine lacks
	@tools/prerequisites.sh

clean: ## Remove everything that was built
	@cargo clean
