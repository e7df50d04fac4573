# `make run` is all that a fresh machine needs, apart from Rust (https://rustup.rs).
.DEFAULT_GOAL := help
.PHONY: bench build chaos check check-history durability fuzz help instructions instructions-record model overload prometheus real-input redis run schemathesis test
# How long `make fuzz` gives each target.
SECONDS ?= 60

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: redis build ## Run a node for development: private Redis in ./homing-data, loopback only
	exec "$${CARGO_TARGET_DIR:-target}/release/homing" serve --dev

build: ## Build the release binary, target/release/homing
	cargo build --release --locked

check: ## What a change must pass before its tests: format, lints, licences, documentation, tidiness
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --locked check licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	cargo test --locked --test tidy

# Integration tests mostly wait, for servers and for time-outs: two at a time for each core take half as long as one.
TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

test: redis prometheus ## Every test: units, properties, and integration on real redis-server and homing processes
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test --workspace --locked

fuzz: ## Fuzz each target for SECONDS=60 with coverage guidance, on stable Rust; see docs/FUZZING.md
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@set -e; for target in $$(cargo fuzz list); do \
		mkdir -p fuzz/corpus/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(SECONDS) -max_len=8192 -timeout=10 -dict=fuzz/json.dict -print_final_stats=1; \
	done

BENCH_SECONDS ?= 30
BENCH_RUNS ?= 3
BENCH_SCALE ?= 100
BENCH_SOCKETS ?= 0
BENCH_OUT ?= docs/BENCHMARKS.md

bench: redis build ## Measure the standard set and write docs/BENCHMARKS.md; see docs/BENCHMARKING.md for its variables
	"$${CARGO_TARGET_DIR:-target}/release/homing" bench suite --out "$(BENCH_OUT)" --seconds $(BENCH_SECONDS) \
		--runs $(BENCH_RUNS) --scale $(BENCH_SCALE) --sockets $(BENCH_SOCKETS) $(if $(BENCH_HTML),--html "$(BENCH_HTML)")

real-input: redis ## Send every package description of this machine's apt lists through two nodes; prints the counts
	HOMING_REAL_INPUT_ENTRIES=1000000 cargo test --locked --test integration real_input -- --nocapture

instructions: ## Count the hot paths' instructions by valgrind; fails if one grew by more than a tenth
	cargo bench --locked --bench instructions

instructions-record: ## Write benches/instructions.txt anew, for a change that is meant to cost what it costs
	HOMING_RECORD_INSTRUCTIONS=1 cargo bench --locked --bench instructions

durability: redis ## Kill Redis under load, 10 times for each durability level and a stalled disk (needs strace); prints what was lost
	HOMING_DURABILITY_TRIALS=$${HOMING_DURABILITY_TRIALS:-10} cargo test --locked --test integration durability -- --nocapture

chaos: redis ## Five minutes of faults with a random seed, optimised; HOURS=n for a campaign
	HOMING_CHAOS_HOURS="$(HOURS)" cargo test --profile bench --locked --test chaos campaign -- --ignored --nocapture

overload: redis ## Flood a node for 30 s in each way (HOMING_OVERLOAD_SECONDS); prints what was shed and what others felt
	HOMING_OVERLOAD_SECONDS=$${HOMING_OVERLOAD_SECONDS:-30} cargo test --profile bench --locked --test integration overload -- --nocapture --test-threads 1

check-history: ## Judge the history of a run of chaos again: make check-history HISTORY=path
	HOMING_HISTORY="$(abspath $(HISTORY))" cargo test --profile bench --locked --test checker recorded_run -- --ignored --nocapture

redis: ## Install redis-server if it is missing (apt-get, dnf or brew)
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || { \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		if command -v apt-get >/dev/null; then \
			$$sudo apt-get update && $$sudo apt-get install --yes --no-install-recommends redis-server; \
		elif command -v dnf >/dev/null; then \
			$$sudo dnf install --assumeyes redis || $$sudo dnf install --assumeyes valkey; \
		elif command -v brew >/dev/null; then \
			brew install redis; \
		else \
			echo 'redis-server is missing, and there is no apt-get, dnf or brew: install it by hand' >&2; exit 1; \
		fi; }

prometheus: ## Install prometheus if it is missing, for the test of the dashboard and the alert rules
	@command -v prometheus >/dev/null || { \
		sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
		if command -v apt-get >/dev/null; then \
			$$sudo apt-get update && $$sudo apt-get install --yes --no-install-recommends prometheus; \
		elif command -v dnf >/dev/null; then \
			$$sudo dnf install --assumeyes golang-github-prometheus; \
		elif command -v brew >/dev/null; then \
			brew install prometheus; \
		else \
			echo 'prometheus is missing, and there is no apt-get, dnf or brew: install it by hand' >&2; exit 1; \
		fi; }

model: ## Explore the take-over and ack protocol within larger bounds than `make test` does; prints states and traces
	cargo run --release --locked -p homing-model

SCHEMATHESIS := target/schemathesis

$(SCHEMATHESIS)/bin/schemathesis:
	python3 -m venv $(SCHEMATHESIS) && $(SCHEMATHESIS)/bin/pip install --quiet schemathesis==4.32.5

schemathesis: redis $(SCHEMATHESIS)/bin/schemathesis ## Play with every call of the HTTP API by its own document (Python; schemathesis comes from PyPI)
	cargo build --locked
	@set -e; key=a-key-for-schemathesis-0123456789abcdef; data=$$(mktemp -d); \
	HOMING_API_KEY=$$key HOMING_JWT_SECRET=a-secret-for-schemathesis-0123456789 "$${CARGO_TARGET_DIR:-target}/debug/homing" \
		serve --listen 127.0.0.1:18080 --admin-listen 127.0.0.1:18081 --data-dir "$$data" >"$$data/log" 2>&1 & \
	node=$$!; trap 'kill $$node; wait $$node || true; rm -rf "$$data"' EXIT; \
	$(SCHEMATHESIS)/bin/schemathesis --config-file tests/schemathesis.toml run http://127.0.0.1:18080/openapi.json \
		--wait-for-schema 30 --max-examples 30 --seed 1 --header "Authorization: Bearer $$key" \
		--checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
