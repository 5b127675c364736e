# An index: the work is in scripts/. `make` alone lists the targets.

.PHONY: help check test lint doc interop loom controls fuzz soak bench versus demo static

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
check: ## what needs no other program: format, lints, docs, tests
	@scripts/check.sh
test: ## everything CI runs; installs what it needs first
	@scripts/test.sh
lint: ## format and clippy, warnings denied
	@scripts/lint.sh
doc: ## API documentation, warnings denied
	@scripts/doc.sh
interop: ## tests with nginx, Redis, PostgreSQL and other real programs
	@scripts/interop.sh
loom: ## every interleaving of the lock-free code
	@scripts/loom.sh
controls: ## known faults, put into a copy: each must be noticed by its test
	@scripts/controls.sh
fuzz: ## each fuzz target for a minute
	@scripts/fuzz.sh
soak: ## 10 minutes of sessions of every kind, then 1,000,000, in network namespaces
	@scripts/soak.sh
bench: ## micro benchmarks
	@cargo bench
versus: ## evenkeel beside HAProxy, nginx, Envoy and a bare relay, 5 rounds; as root
	@scripts/versus.sh
demo: ## three servers, a load balancer and its page, in one process
	@cargo run --release -- demo
static: ## one static binary, and proof that it is
	@scripts/static.sh
