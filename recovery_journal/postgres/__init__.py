"""The server: connections, the embedded server, and making the schema."""
