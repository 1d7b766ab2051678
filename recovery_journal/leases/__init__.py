"""Leases, run steps and checkpoints: what workers and people write, and what the rows then say."""
