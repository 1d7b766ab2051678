"""A job that outlives its workers: run, disturbed, recovered and proved on real input."""
