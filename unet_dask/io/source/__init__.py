"""Reading volumes: which array of a store is meant, what its axes are, windows of it."""
