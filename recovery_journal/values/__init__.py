"""The value codec: which types are accepted, and how each is encoded and decoded."""
