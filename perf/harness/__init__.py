"""What `perf/compare` is made of: programs to start, things to measure, and what is made of the numbers."""
