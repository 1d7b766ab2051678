"""Which values are accepted, and that each comes back as it went in."""
