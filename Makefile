# One list of commands; `make help` prints it.

CARGO ?= cargo
BOUNCERT = $(CARGO) run --quiet --bin bouncert --

.DEFAULT_GOAL := help
FUZZ_TARGETS = pem der csr duration policy printable ini projection patch
FUZZ_SECONDS ?= 60
SOAK ?= 10m

.PHONY: help deps demo compare test readers chaos fmt lint bans audit doc ci bench fleet soak fuzz fuzzci crds pkilint

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the programs that demo and test need (Debian, Ubuntu)
	@sh deploy/install-deps.sh

demo: deps ## Run the main job on this machine, from nothing to done
	@echo "demo: building (the first time takes minutes)"
	@$(CARGO) build --bin bouncert
	@$(CARGO) run --quiet --bin bouncert -- demo

compare: deps ## Compare restart, reload and undrained eviction on this machine, under load
	@$(CARGO) build --bin bouncert
	@$(CARGO) run --quiet --bin bouncert -- demo --compare

test: deps ## Run all tests
	@sh deploy/more-pgbouncers.sh $(or $(CARGO_TARGET_DIR),target)/pgbouncers
	$(CARGO) test --no-fail-fast
	@echo "test: alerts of a broken issuer under Prometheus (two minutes, alone, because their bounds are seconds)"
	BOUNCERT_LIVE_ALERTS=1 $(CARGO) test --test it -- monitoring::seen

readers: deps ## Ask Go, Java, Node.js, Python, cryptography and GnuTLS about what is issued (those that are there)
	@BOUNCERT_READERS=1 $(CARGO) test --test it -- readers:: --nocapture

chaos: deps ## Break everything under load for ten minutes (SEED=1 is the schedule)
	@$(CARGO) build --bin bouncert
	@$(CARGO) run --quiet --bin bouncert -- chaos --minutes 10 --seed $(or $(SEED),1)

fmt: ## Check the format
	$(CARGO) fmt --check

lint: ## Check for warnings
	$(CARGO) clippy --all-targets -- -D warnings

bans: audit ## Check that there is one crypto provider and no OpenSSL, and known advisories
	@for crate in aws-lc-sys openssl-sys; do \
	  if $(CARGO) tree --edges normal,build --target all --invert $$crate 2>/dev/null | grep -q .; then \
	    echo "bans: $$crate is in the tree:"; \
	    $(CARGO) tree --edges normal,build --target all --invert $$crate; exit 1; \
	  fi; \
	done; echo "bans: neither aws-lc-sys nor openssl-sys is in the tree"

# RustSec's database is a Git repository, and no registry carries it. What concerns the crates in Cargo.lock stands as
# facts in deploy/advisories.toml, with the state of the database; a test compares them, without a network. Where
# cargo-audit is installed and the database can be had (ADVISORIES is a checkout of it), that is asked as well.
audit: ## Compare Cargo.lock with RustSec's advisories (deploy/advisories.toml; ADVISORIES=checkout of the database)
	@$(CARGO) test --quiet --test it -- advisories::
	@if ! $(CARGO) audit --version >/dev/null 2>&1; then \
	  echo "audit: cargo-audit is not installed, so only the facts in deploy/advisories.toml were compared"; \
	elif [ -n "$(ADVISORIES)" ]; then \
	  echo "audit: advisories of commit $$(git -C "$(ADVISORIES)" log -1 --format='%h of %cs')"; \
	  $(CARGO) audit --db "$(ADVISORIES)" --no-fetch --deny warnings; \
	elif git ls-remote --exit-code https://github.com/rustsec/advisory-db HEAD >/dev/null 2>&1; then \
	  $(CARGO) audit --deny warnings; \
	else echo "audit: the database is out of reach, so only the facts in deploy/advisories.toml were compared"; fi

doc: ## Check the documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

ci: ## Everything that has to pass before a change is accepted
	@set -e; for step in fmt bans lint doc test fuzzci; do \
	  echo "ci: $$step"; $(MAKE) --no-print-directory $$step; \
	done; echo "ci: all passed"

pkilint: ## Have pkilint judge the certificates that tests sign (from PyPI; NOT RUN where it cannot be installed)
	@tests/pkilint/run.sh

bench: ## Measure what is worth measuring
	$(CARGO) bench

fleet: ## Measure the daemon with 5,000 PgBouncers, whose pods are simulated
	$(CARGO) bench --bench fleet

soak: deps ## Leave it to itself under load, with certificates that are renewed every half minute
	@$(CARGO) build --bin bouncert
	@$(CARGO) run --quiet --bin bouncert -- demo --soak $(SOAK)

fuzz: ## Fuzz the parsers, FUZZ_SECONDS each (needs a nightly toolchain and cargo-fuzz)
	@cp Cargo.lock fuzz/Cargo.lock
	@for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/target/corpus/$$target; \
	  $(CARGO) +nightly fuzz run --codegen-units 16 $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=512 -timeout=10 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

fuzzci: # What `make ci` does of it: seconds for each target, where the tools are
	@if $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then \
	  $(MAKE) --no-print-directory fuzz FUZZ_SECONDS=10; \
	else \
	  echo "fuzz: skipped, there is no nightly toolchain with cargo-fuzz; the corpus is replayed by the tests"; \
	fi

crds: ## Write the CRDs and the other golden files anew
	GOLDEN=update $(CARGO) test --lib --test it golden

# In a cluster that KUBECONFIG names, from where its pods can be reached: `E2E_PGBOUNCER_IMAGE` is the pooler's
# image, `E2E_POSTGRES` (address:port) and `E2E_POSTGRES_PASSWORD` a PostgreSQL that pods can reach.
e2e: ## Run the end-to-end suite (KUBECONFIG=…; on the local platform without)
	E2E_KUBECONFIG="$(KUBECONFIG)" $(CARGO) test --test it e2e:: -- --nocapture
