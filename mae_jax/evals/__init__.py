"""Evaluators of encoders and classifiers, one per file, each with `make(**kwargs)`."""
