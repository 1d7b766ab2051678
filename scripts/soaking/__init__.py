"""A calm and steady fleet, looked at for long: whether anything in any process grows for good."""
