"""Figures of one run, in its folder `figures/`: one kind per file, each with `make(**kwargs)`."""
