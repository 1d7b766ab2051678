"""Soak test: a fleet without faults, sampled for long, in which nothing may grow."""
