"""The parts of examples/bench.py: systems, load, workloads, goals, and what is printed."""
