"""What tests, scenarios and benchmarks share."""
