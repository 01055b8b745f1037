# One command for each thing that one wants to do here; `make` alone lists them.
.DEFAULT_GOAL := help
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test ci fmt lint unit e2e screenshots k8s alerts rules image-check instructions fuzz fuzz-briefly build soak bench bench-parts bench-verify h2spec check clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

demo: ## two real projects, real users, one number that moves them (DEMO_EXIT=1: end after the script)
	@demo/run.sh

# What end-to-end tests, image-check and instructions need beside the tests themselves is built beside all the rest, at the lowest priority: tests wait for sockets, and a compiler's last crate has one core to itself.
test: ## everything that must pass: format, lints, manifests, alerts, unit, property, integration and end-to-end tests, the image's program, what a request costs
	tests/beside.sh $(TARGET)/builds.log tests/programs.sh -- $(MAKE) --no-print-directory fmt lint k8s alerts unit fuzz-briefly e2e
	@$(MAKE) --no-print-directory image-check instructions

ci: test ## what .ci/run runs

fmt: ## formatting
	$(CARGO) fmt --all -- --check

lint: ## lints, warnings are errors; dependencies against deny.toml
	$(CARGO) clippy --all-targets --features instructions,soak --locked -- -D warnings
	tests/deny/run.sh

# Four at a time on any machine: most of them wait for sockets.
unit: ## unit, property and integration tests
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),4) $(CARGO) test --locked
	cd benches/peers && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest --quiet

# Two at a time, of which most inputs are known: it is the corpus and its neighbourhood that is tried here.
fuzz-briefly:
	fuzz/run.sh 5

# The program that the tests were built with: a plain `cargo build` would compile half of the tree again, because tests ask for more of tokio.
e2e: ## the end-to-end suite: real PostgreSQL, real upstreams, supabase-js and supabase-py
	$(CARGO) test --locked --no-run --test it
	CUTOVER_BIN=$(abspath $(TARGET))/debug/cutover tests/e2e/run.sh

screenshots: ## docs/console-*.png again: both projects, forty users, five minutes
	$(CARGO) build --locked --bin cutover
	CUTOVER_BIN=$(abspath $(TARGET))/debug/cutover tests/e2e/screenshots.sh

k8s: ## the manifests: rendered, valid for three Kubernetes versions, fitting each other
	tests/k8s/run.sh

alerts: ## the dashboard and the alerts: each fires when it should, and names what exists
	tests/observability/run.sh

rules: ## writes the alerts in the form of the Prometheus operator
	tests/k8s/run.sh --write-rules

image-check: ## the image's program: static, small, serving in an empty root (IMAGE_PROGRAM: this one, not a new one)
	tests/image/check.sh $(IMAGE_PROGRAM)

# Built as the image's program is, so that its dependencies are built once for both.
instructions: ## what the pure path costs, in instructions and allocations, against benches/instructions/figures.txt (WRITE=1: writes them anew)
	benches/instructions/run.py $(if $(WRITE),--write)

build: ## the release binary
	$(CARGO) build --release --locked

fuzz: ## every fuzz target for 10 minutes each (FUZZ_SECONDS)
	fuzz/run.sh $(or $(FUZZ_SECONDS),600)

soak: build ## an hour at half load with changes, faults, outages, uploads and sockets (QUICK=1: five minutes; SOAK_SECONDS, SOAK_RATE)
	SOAK_SECONDS=$(or $(SOAK_SECONDS),$(if $(QUICK),300,3600)) CUTOVER_BIN=$(abspath $(TARGET))/release/cutover $(CARGO) bench --locked --features soak --bench soak

bench: ## side by side with nginx, HAProxy, Envoy, Pingora, Caddy and Traefik: writes docs/performance.md (QUICK=1: under 5 minutes)
	QUICK=$(QUICK) benches/peers/run.sh $(BENCH_FLAGS)

bench-parts: ## the benches of the parts; each prints its own figures
	$(CARGO) bench --locked

bench-verify: build ## `verify --rows all` over 1,000,000 rows in two real databases (VERIFY_ROWS), with 7 planted differences
	CUTOVER_BIN=$(abspath $(TARGET))/release/cutover benches/verify.sh

h2spec: ## HTTP/2 conformance by h2spec, which no registry has: its program in H2SPEC, or a clone of it in H2SPEC_SOURCE
	$(CARGO) build --locked --bin cutover
	CUTOVER_BIN=$(abspath $(TARGET))/debug/cutover tests/h2spec/run.py

check: build ## the shipped config.toml through the release binary
	$(TARGET)/release/cutover check --config config.toml

clean: ## what cargo built (the end-to-end tests' cache stays)
	$(CARGO) clean
