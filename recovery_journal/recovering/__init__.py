"""Finding lost leases and driving each through the pipeline."""
