"""The network, its header and its file."""
