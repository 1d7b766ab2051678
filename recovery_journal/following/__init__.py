"""Projections in PostgreSQL: their tables, and following the log."""
