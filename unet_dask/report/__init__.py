"""The report of a run: one file that says what was planned, what was done, and what it looks like."""
