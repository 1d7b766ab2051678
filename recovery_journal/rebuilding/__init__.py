"""Making the rows of projections anew from the log, and proving them."""
