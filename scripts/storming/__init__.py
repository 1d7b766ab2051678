"""Chaos test: random faults on real processes and a real server, and the proof of the promises."""
