"""Learning with labels from a pre-trained encoder, one task a file; see `types.Method`."""
