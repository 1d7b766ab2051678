"""What ends the demonstration before its proof."""


class Trouble(Exception):
    """Something did not happen that the demonstration waits for, or happened by itself."""
