"""The engine of every run: mesh, step, optimizer, checkpoints, log."""
