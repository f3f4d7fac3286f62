"""Training: the recipe of section 3 of the paper."""
