"""The machines of a user, read from the files that describe them."""
