# Each target does all its own set-up on a fresh machine; .venv is made once and updated when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LEAF := $(wildcard otel_pipeline/*/_*_py.py otel_pipeline/*/_*_c.pxd)

.PHONY: demo test test-all lint bench bench-engine config peers clean

demo: $(VENV)/.installed ## Run the main job: a worker, its queue and its backends, traced; says what to look at
	$(BIN)/otel-pipeline demo $(DEMO_ARGS)

test: $(VENV)/.installed peers ## The whole test suite
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: $(VENV)/.installed ## Style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed peers ## Gateways side by side; writes tests/benchmarks/results
	$(BIN)/python -m tests.benchmarks.engine
	$(BIN)/python -m tests.benchmarks.gateways $(BENCH_ARGS)

config: $(VENV)/.installed ## Write collector-config/gateway.yaml anew from the settings
	$(BIN)/python scripts/generate-config-reference

peers: ## Real servers to test against: Jaeger, the Collector, Prometheus, Redis (cached)
	scripts/install-peers

$(VENV)/.installed: pyproject.toml setup.py $(LEAF)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	OTEL_PIPELINE_REQUIRE_EXTENSIONS=1 $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean: ## Remove what was built
	rm -rf $(VENV) build dist *.egg-info otel_pipeline/wire/*.so
