"""One run on one sink: what it is told, what it does, and what it leaves of itself."""
