# `make run` is all that a fresh machine needs, apart from Rust (https://rustup.rs).
.DEFAULT_GOAL := help
.PHONY: help run build check test real-input durability overload redis prometheus

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

test: redis prometheus ## Every test: units, properties, and integration on real redis-server and homing processes
	cargo test --workspace --locked

real-input: redis ## Send every package description of this machine's apt lists through two nodes; prints the counts
	HOMING_REAL_INPUT_ENTRIES=1000000 cargo test --locked --test integration real_input -- --nocapture

durability: redis ## Kill Redis under load, 10 times for each durability level and a stalled disk (needs strace); prints what was lost
	HOMING_DURABILITY_TRIALS=$${HOMING_DURABILITY_TRIALS:-10} cargo test --locked --test integration durability -- --nocapture

overload: redis ## Flood a node for 30 s in each way (HOMING_OVERLOAD_SECONDS); prints what was shed and what others felt
	HOMING_OVERLOAD_SECONDS=$${HOMING_OVERLOAD_SECONDS:-30} cargo test --release --locked --test integration overload -- --nocapture --test-threads 1

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
