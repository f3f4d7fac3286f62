"""Scores of the field. Pure numpy."""
