"""Runs of several processes: which process this is, and that all end together."""
