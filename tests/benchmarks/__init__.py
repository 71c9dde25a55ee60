"""Side by side load runs of gateways: python -m tests.benchmarks.gateways, python -m tests.benchmarks.kill."""
