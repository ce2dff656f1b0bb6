"""Pictures of one run, in its folder `figures/`: one kind a file, each with `make(**kwargs)`."""
