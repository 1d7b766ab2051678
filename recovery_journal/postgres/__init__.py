"""The server: connections, the embedded server, and the creation of the schema."""
