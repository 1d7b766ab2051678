"""Projections in PostgreSQL: their tables, following the log, rebuilding, checking."""
