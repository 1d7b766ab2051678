"""The log: appending without a queue, reading without gaps, on the eventsourcing library."""
