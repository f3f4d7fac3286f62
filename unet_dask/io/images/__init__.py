"""Images as people have them: annotated ones for training, stacks of planes for scoring."""
