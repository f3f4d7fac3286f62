"""Writing results: the store, its place, its pyramids, and surviving a power cut."""
