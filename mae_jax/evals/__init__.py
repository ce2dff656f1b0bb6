"""What an encoder is worth: one evaluator a file, each with `make(**kwargs)`."""
