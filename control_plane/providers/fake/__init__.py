"""A place that does not exist, with every fault that real ones have: for tests, demonstrations and benchmarks."""
