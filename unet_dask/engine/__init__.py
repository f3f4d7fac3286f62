"""From the array of a region to probabilities, in tiles, on one device."""
