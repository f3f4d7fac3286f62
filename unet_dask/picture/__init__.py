"""Pictures of results: what is read of a plane, how values look, and the figures that are made of both."""
