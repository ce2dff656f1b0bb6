"""Learning without labels: one pretext task a file, each with `make(**kwargs) -> Method`."""
