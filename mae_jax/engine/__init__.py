"""What every run shares and no run names: mesh, step, optimizer, checkpoints, log."""
