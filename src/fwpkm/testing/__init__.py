"""What tests and benchmarks share: accuracy assertions, input makers, golden cases."""
