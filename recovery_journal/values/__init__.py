"""Values of the user's: which are accepted, and how each is written and read."""
