# The commands of the README. Everything that is made goes to target/.

.DEFAULT_GOAL := help
.PHONY: help build demo test python typescript campaign charts alerts traces oidc bench release images e2e cluster-up cluster-down

# `make demo KAFKA=1` runs the demo over a real Kafka.
KAFKA ?=

# `make bench PARTS="agents streams"` measures these parts alone.
PARTS ?=
NATS = $(or $(filter nats,$(PARTS)),$(if $(PARTS),,nats))

# Programs are picked, not packages: that gives each crate the features it has in the whole workspace, and so it is built once.
BUILD := cargo build --locked --workspace

# What ships. Each program costs its own optimisation of everything that is linked into it.
RELEASE := cargo build --locked --release -p acb -p acb-hub -p acb-operator

help: ## Lists the commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## Builds everything, for tests and for the demo.
	@scripts/install-dependencies build
	@scripts/crates
	$(BUILD) --all-targets

demo: ## Runs the main job: two tenants, their hubs and agents, a stream, the attacks. KAFKA=1: over Kafka.
	@scripts/install-dependencies build $(if $(KAFKA),kafka)
	@$(if $(KAFKA),tests/testbed/kafka/fetch.sh)
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub --bin acb-demo
	target/debug/acb-demo $(if $(KAFKA),--kafka)

test: ## Format, lints, unit and golden tests, conformance suites, integration tests on a real PostgreSQL and a real Kafka.
	@scripts/install-dependencies build kafka test
	@tests/testbed/kafka/fetch.sh
	@scripts/postgres17
	@scripts/crates
	@scripts/test

python: ## Format, lints, types and tests of the Python SDK and its examples, on a real hub; needs Python 3.11 or later.
	@scripts/install-dependencies build test python
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub
	scripts/test-python

typescript: ## The TypeScript SDK: builds it, checks its types, and runs its tests and examples on a hub that they start.
	@scripts/install-dependencies build typescript
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub
	scripts/test-typescript

# `make campaign SEED=7 SEQUENCES=1` plays one history again.
SEED ?= 1
SEQUENCES ?= 5000

campaign: ## Tries the operator's decisions on thousands of seeded histories of faults. SEED=… SEQUENCES=…
	@scripts/install-dependencies build
	@scripts/crates
	SEED=$(SEED) SEQUENCES=$(SEQUENCES) cargo test --locked -p acb-campaign -- --nocapture

charts: ## Lints the charts and holds what they make against config/operator; needs helm ($$HELM, e2e/build's, or on the PATH).
	@scripts/crates
	cargo test --locked --workspace --test charts -- --include-ignored

alerts: ## Evaluates the alert rules on recorded series, by promtool, and reads the dashboards by Grafana's schema; needs Go 1.26.7 or later.
	@tests/testbed/monitoring/build
	target/testbed/monitoring/promtool check rules --lint=all --lint-fatal config/alerts/alerts.yaml
	target/testbed/monitoring/promtool test rules config/alerts/tests/*.yaml
	target/testbed/monitoring/dashboards config/dashboards/*.json

traces: ## Sends traces to a real collector, over two agents and both replicas; needs Go 1.26 or later.
	@scripts/install-dependencies build
	@tests/testbed/collector/build
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub
	cargo test --locked --workspace --test collector -- --include-ignored

oidc: ## Logs in by a real OpenID Connect issuer, as a person and as a program; needs Node.js 20.19 or later.
	@scripts/install-dependencies build
	@tests/testbed/oidc/build
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub
	cargo test --locked --workspace --test issuer -- --include-ignored

bench: ## Measures the figures of docs/figures.md, to target/bench/report.json. PARTS="…": these. OPERATOR=1: also the operator's, on a control plane that it makes.
	@scripts/install-dependencies build kafka $(if $(OPERATOR),e2e)
	@tests/testbed/kafka/fetch.sh
	@# What stands beside the hub: its server is Go, its client a workspace of its own.
	$(if $(NATS),tests/testbed/nats/build)
	$(if $(NATS),cargo build --locked --release --manifest-path tests/bench/nats/Cargo.toml --target-dir target/nats)
	$(if $(OPERATOR),e2e/build)
	@scripts/crates
	@# The bare server is in acb-bench: to be measured against the hub it is built as the hub is.
	$(RELEASE) -p acb-bench
	@# It only makes the cluster.
	$(if $(OPERATOR),$(BUILD) --bin acb-e2e)
	target/release/acb-bench $(addprefix --only ,$(PARTS)) $(if $(OPERATOR),--also operator --also scale --also fairness)

release: ## Dry run of a release, to target/release-VERSION: binaries, images, charts, notes, checksums. Publishes nothing.
	@scripts/install-dependencies build e2e
	@scripts/crates
	$(RELEASE)
	scripts/release

images: ## Makes the container images of operator, hub and command line, to target/images.
	@scripts/install-dependencies build e2e
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub --bin acb-operator --bin acb-e2e-agent
	images/build

# Everything that a cluster is made of.
cluster-parts:
	@scripts/install-dependencies build kafka e2e
	@tests/testbed/kafka/fetch.sh
	@scripts/postgres17
	e2e/build
	@scripts/crates
	$(BUILD) --bin acb --bin acb-hub --bin acb-operator --bin acb-e2e --bin acb-e2e-agent
	@# Without a node nothing would run them.
	if target/debug/acb-e2e lacks; then images/build; fi
.PHONY: cluster-parts

e2e: cluster-parts ## Runs scenarios on a real Kubernetes cluster that it makes, to target/e2e/report.json. ALL=1: all of them. SCENARIOS="…": these.
	target/debug/acb-e2e run $(if $(ALL),--all) $(SCENARIOS)

cluster-up: cluster-parts ## Makes a real Kubernetes cluster on this machine, and leaves it up.
	@target/debug/acb-e2e up

cluster-down: ## Ends the cluster, and removes what it made.
	@target/debug/acb-e2e down
