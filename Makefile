# gotrace: `make demo` and `make test` do all of their own set-up. `make help` lists the rest.
.PHONY: help setup demo demo-cluster demo-serve demo-fleet image baseline-report test test-arm64 test-fresh bench soak lint format docs sbom clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: ## install what is missing: BCC, a virtual environment
	@scripts/setup run

demo: ## trace a small Go service for ten seconds
	@scripts/demo

baseline-report: ## that service under load, six times: how it behaves here (RUNS=10 LOAD_S=10)
	@scripts/baseline-report

demo-cluster: ## the tools for AI clusters on a slow file system, a saved topology, stand-ins for CUDA: three pages
	@scripts/setup cluster
	@.venv/bin/python scripts/demo-cluster

demo-serve: ## the agent, a real Prometheus and three Go services: the 99th percentile of pauses, asked of both
	@scripts/setup serve
	@.venv/bin/python scripts/demo-serve

demo-fleet: ## what this machine's services do, measured several ways, put into a fleet's folder: one page of it
	@scripts/demo-fleet

image: ## the agent as a container image (IMAGE=gotrace IMAGE_OPTIONS='--build-arg BASE=…', by podman)
	@scripts/setup run
	@rm -rf build/image
	@.venv/bin/python -m pip wheel -q --no-deps -w build/image .
	@podman build -t $(or $(IMAGE),gotrace) $(IMAGE_OPTIONS) .

test: ## set up and run every test (ARGS=tests/unit runs some)
	@scripts/setup test
	@scripts/test $(ARGS)

test-arm64: ## run what matters of it inside an emulated ARM64 machine (ARGS=… as for test; ALL=1: every Go release, every test)
	@scripts/setup test
	@scripts/arm64-vm build
	@GOTRACE_ARM64_VM=1 .venv/bin/python -m pytest -n 3 tests/integration/test_arm64_vm.py
	@GOTRACE_ALL_RELEASES=$(ALL) setpriv --pdeathsig TERM scripts/arm64-vm --timeout 3000 test $(ARGS)

test-fresh: ## run the demo on bare Debian 12 and 13 systems
	@scripts/test-fresh $(or $(SUITES),bookworm trixie)

bench: ## measure gotrace against other tools, side by side
	@scripts/setup bench
	@.venv/bin/python benchmarks/run.py

soak: ## the agent among 20,000 processes that come and go, at 100 scrapes a second: what stays of them
	@scripts/setup test
	@.venv/bin/python benchmarks/soak.py

lint: ## style and types
	@scripts/setup test lint
	@scripts/lint

format: ## reformat the code
	@scripts/setup lint
	@scripts/lint --fix

docs: ## write its generated parts, and build it into build/docs; a warning or a broken link is an error
	@scripts/setup docs
	@.venv/bin/python scripts/make-docs
	@.venv/bin/sphinx-build -EqnW --keep-going -d build/doctrees docs build/docs
	@echo "docs: build/docs/index.html"

sbom: ## what a release brings along, as CycloneDX: build/gotrace.cdx.json
	@scripts/setup sbom
	@.venv/bin/python scripts/sbom build/gotrace.cdx.json

clean: ## remove what was built in this checkout
	rm -rf .venv demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
