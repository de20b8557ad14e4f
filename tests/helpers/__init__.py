"""Helpers shared by tests, scenarios and benchmarks."""
