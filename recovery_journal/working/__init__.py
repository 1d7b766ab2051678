"""Running a worker's function under its lease, in a child process."""
