"""Sweeps: runs all experiments of one file in a pool of processes, and reports the results."""
