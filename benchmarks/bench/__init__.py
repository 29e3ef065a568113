"""Speed of serfn, part by part; see `benchmarks/README.md`."""
