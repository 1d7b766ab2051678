"""What people and programs read: histories, lists, status."""
