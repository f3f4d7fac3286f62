"""Checking a finished sink: its ledger, every checksum, sentinels, seams, crops recomputed; and repair."""
