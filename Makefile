# One list of commands; `make help` prints it.

CARGO ?= cargo
BOUNCERT = $(CARGO) run --quiet --bin bouncert --

.DEFAULT_GOAL := help
.PHONY: help deps demo test fmt lint bans doc ci bench fuzz crds

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Install the programs that demo and test need (Debian, Ubuntu)
	@sh deploy/install-deps.sh

demo: deps ## Run the main job on this machine, from nothing to done
	@echo "demo: building (the first time takes minutes)"
	@$(CARGO) build --bin bouncert
	@$(CARGO) run --quiet --bin bouncert -- demo

test: deps ## Run all tests
	$(CARGO) test --no-fail-fast

fmt: ## Check the format
	$(CARGO) fmt --check

lint: ## Check for warnings
	$(CARGO) clippy --all-targets -- -D warnings

bans: ## Check that there is one crypto provider and no OpenSSL
	@for crate in aws-lc-sys openssl-sys; do \
	  if $(CARGO) tree --edges normal,build --target all --invert $$crate 2>/dev/null | grep -q .; then \
	    echo "bans: $$crate is in the tree:"; \
	    $(CARGO) tree --edges normal,build --target all --invert $$crate; exit 1; \
	  fi; \
	done; echo "bans: neither aws-lc-sys nor openssl-sys is in the tree"

doc: ## Check the documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

ci: ## Everything that has to pass before a change is accepted
	@set -e; for step in fmt bans lint doc test; do \
	  echo "ci: $$step"; $(MAKE) --no-print-directory $$step; \
	done; echo "ci: all passed"

bench: ## Measure what is worth measuring
	$(CARGO) bench

fuzz: ## Fuzz the parsers, a minute each (needs a nightly toolchain and cargo-fuzz)
	@for target in pem csr duration policy; do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=60 -rss_limit_mb=512 || exit 1; \
	done

crds: ## Write the CRDs and the other golden files anew
	GOLDEN=update $(CARGO) test --test it golden
