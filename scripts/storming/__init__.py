"""Real processes on a real server, struck down at random, and the proof that nothing was lost."""
