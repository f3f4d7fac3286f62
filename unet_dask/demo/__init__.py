"""The demo, and the images with known truth that it makes."""
