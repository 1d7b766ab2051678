"""Made histories of any length, by the decisions of the domain: for benchmarks and tests."""
